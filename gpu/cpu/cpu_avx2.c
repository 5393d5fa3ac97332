#define CPU_LEVEL_NAME  "avx2"
#define CPU_LEVEL_TABLE cpu_avx2
#define CPU_LANES       8
#include "gpu/cpu/cpu_kernels.inc"
