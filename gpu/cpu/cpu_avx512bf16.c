#define CPU_LEVEL_NAME  "avx512bf16"
#define CPU_LEVEL_TABLE cpu_avx512bf16
#define CPU_LANES       16
#define CPU_DOT_BF16
#include "gpu/cpu/cpu_kernels.inc"
