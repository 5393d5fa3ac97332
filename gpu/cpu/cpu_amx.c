#define CPU_LEVEL_NAME  "amx"
#define CPU_LEVEL_TABLE cpu_amx
#define CPU_LANES       16
#define CPU_DOT_BF16
#define CPU_TILES
#include "gpu/cpu/cpu_kernels.inc"
