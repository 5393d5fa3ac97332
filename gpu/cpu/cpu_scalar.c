#define CPU_LEVEL_NAME  "scalar"
#define CPU_LEVEL_TABLE cpu_scalar
#define CPU_LANES       4
#include "gpu/cpu/cpu_kernels.inc"
