#define CPU_LEVEL_NAME  "avx512"
#define CPU_LEVEL_TABLE cpu_avx512
#define CPU_LANES       16
#include "gpu/cpu/cpu_kernels.inc"
