#include "services/worker/worker_program.h"

int main(int argc, char **argv)
{
    return worker_program("prefill", TS_PHASE_PREFILL, argc, argv);
}
