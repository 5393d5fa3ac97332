#include "gpu/cuda/host/kernel_record.h"

#include <pthread.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "gpu/cuda/host/kernel_host.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void kernel_command_run(const struct kernel_command *c)
{
    switch (c->kind) {
    case KERNEL_LAUNCH:
        pthread_mutex_lock(&lock);
        kernel_host_set_dynamic(c->shared_bytes);
        kernel_host_launch(c->kernel, c->args, c->grid, c->block);
        pthread_mutex_unlock(&lock);
        break;
    case KERNEL_FILL:
        memset(c->to, c->byte, c->bytes);
        break;
    case KERNEL_MOVE:
        memmove(c->to, c->from, c->bytes);
        break;
    case KERNEL_MARK:
        *(ts_time *)c->to = ts_clock_now();
        break;
    }
}

void kernel_record_add(struct kernel_record *r, const struct kernel_command *c)
{
    ts_array_reserve((void **)&r->commands, &r->capacity, r->count + 1, sizeof *r->commands);
    r->commands[r->count] = *c;
    if (c->kind == KERNEL_LAUNCH) {
        void *args = ts_xaligned(64, c->bytes);
        r->commands[r->count].args = memcpy(args, c->args, c->bytes);
    }
    r->count++;
}

void kernel_record_run(const struct kernel_record *r)
{
    for (size_t i = 0; i < r->count; i++)
        kernel_command_run(&r->commands[i]);
}

void kernel_record_fini(struct kernel_record *r)
{
    for (size_t i = 0; i < r->count; i++)
        ts_free(r->commands[i].args);
    ts_free(r->commands);
    *r = (struct kernel_record){0};
}
