#include "services/worker/worker_program.h"

int main(int argc, char **argv)
{
    return worker_program("decode", TS_PHASE_DECODE, argc, argv);
}
