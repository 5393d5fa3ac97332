/* Fibers: each thread of a block has a stack of its own, and control jumps from one to the other. */
#include "gpu/cuda/host/kernel_host.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#if defined(WITH_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif

#define STACK_BYTES  ((size_t)64 << 10)
#define STACK_CANARY 0x5ec2e75ac0a51e5eULL
#define WARP         32u
#define POISON       0xa5

enum wait { READY, AT_BARRIER, AT_EXCHANGE, AT_BALLOT, AT_FUNCTION, ENDED };

/* An asynchronous copy of 16 bytes, and the number of its group. */
struct copy {
    void *to;
    const void *from; /* NULL = zeros */
    uint64_t group;
};

/* --- where control is left and taken up ------------------------------------------------------------------
 */

/* kernel_switch(from, to) leaves `from` and goes on where `to` was left, or begins. */
#if defined(__x86_64__)
typedef void *place; /* a stack, on it what a function must keep, and where to return */

void kernel_switch(place *from, const place *to);
__asm__(".text\n"
        ".type kernel_switch, @function\n"
        "kernel_switch:\n"
        "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq (%rsi), %rsp\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n"
        "    ret\n"
        ".size kernel_switch, .-kernel_switch\n");

static void make_place(place *p, uint8_t *stack, size_t bytes, void (*begin)(void))
{
    void **top = (void **)(void *)(stack + bytes) - 2; /* aligned as after a call, from nowhere */
    top[0] = (void *)(uintptr_t)begin;
    *p = memset(top - 6, 0, 6 * sizeof *top);
}
#else
#include <ucontext.h>
typedef ucontext_t place;

static void kernel_switch(place *from, const place *to)
{
    TS_ASSERT(swapcontext(from, to) == 0);
}

static void make_place(place *p, uint8_t *stack, size_t bytes, void (*begin)(void))
{
    TS_ASSERT(getcontext(p) == 0);
    p->uc_stack.ss_sp = stack;
    p->uc_stack.ss_size = bytes;
    makecontext(p, begin, 0);
}
#endif

struct fiber {
    struct kernel_host_thread self;
    place at;
    uint8_t *stack;
    enum wait wait;
    uint32_t mask, source; /* of a warp function */
    uint64_t value;        /* given, then gotten */
    void (*function)(void *const *lanes);
    struct copy *copies; /* that were not waited for */
    size_t copy_count, copy_capacity;
    uint64_t group;   /* of copies to come */
    void *fake_stack; /* of the address sanitizer */
};

/* The launch that runs. */
static struct {
    void (*kernel)(const void *);
    const void *args;
    struct fiber *fibers[KERNEL_HOST_THREADS_MAX]; /* kept from launch to launch */
    uint32_t threads, at_barrier, true_ones, barrier_result;
    uint32_t *order;                                  /* of the threads */
    uint32_t arrived[KERNEL_HOST_THREADS_MAX / WARP]; /* lanes that wait in a warp function */
    void *shared;
    uint64_t shared_bytes;
    struct fiber *current;
    place scheduler;
    void *scheduler_fake_stack;
    const void *scheduler_stack;
    size_t scheduler_stack_bytes;
    bool running;
} run;

static uint64_t wished_order, dynamic_bytes = UINT64_MAX;
const struct kernel_host_thread *kernel_host_self;

void kernel_host_set_order(uint64_t order)
{
    wished_order = order;
}

void kernel_host_set_dynamic(uint64_t bytes)
{
    dynamic_bytes = bytes;
}

/* --- switching ------------------------------------------------------------------------------------------ */

/* The address sanitizer is told of each change of stacks. */
static void leave_stack(void **keep, const void *bottom, size_t bytes)
{
#if defined(WITH_ASAN)
    __sanitizer_start_switch_fiber(keep, bottom, bytes);
#else
    (void)keep, (void)bottom, (void)bytes;
#endif
}

static void enter_stack(void *kept, const void **bottom, size_t *bytes)
{
#if defined(WITH_ASAN)
    __sanitizer_finish_switch_fiber(kept, bottom, bytes);
#else
    (void)kept, (void)bottom, (void)bytes;
#endif
}

static void yield(void)
{
    leave_stack(&run.current->fake_stack, run.scheduler_stack, run.scheduler_stack_bytes);
    kernel_switch(&run.current->at, &run.scheduler);
    enter_stack(run.current->fake_stack, &run.scheduler_stack, &run.scheduler_stack_bytes);
}

/* A fiber serves its thread in block after block and launch after launch. */
static _Noreturn void fiber_main(void)
{
    enter_stack(NULL, &run.scheduler_stack, &run.scheduler_stack_bytes);
    for (;;) {
        run.kernel(run.args);
        run.current->wait = ENDED;
        yield();
    }
}

static void resume(struct fiber *f)
{
    run.current = f;
    kernel_host_self = &f->self;
    leave_stack(&run.scheduler_fake_stack, f->stack, STACK_BYTES);
    kernel_switch(&run.scheduler, &f->at);
    enter_stack(run.scheduler_fake_stack, NULL, NULL);
    TS_ASSERT(*(uint64_t *)(void *)run.current->stack == STACK_CANARY);
}

/* --- what threads wait for ------------------------------------------------------------------------------ */

static _Noreturn void refuse(const char *what)
{
    const struct fiber *f = run.current;
    fprintf(stderr, "kernel: block %u, thread %u, mask %08x: %s\n", f->self.block.x, f->self.thread.x,
            f->mask, what);
    abort();
}

static void release_barrier(void)
{
    run.barrier_result = run.true_ones;
    run.at_barrier = run.true_ones = 0;
    for (uint32_t i = 0; i < run.threads; i++)
        run.fibers[i]->wait = READY;
}

uint32_t kernel_host_barrier(int predicate)
{
    run.current->wait = AT_BARRIER;
    run.true_ones += predicate != 0;
    if (++run.at_barrier == run.threads)
        release_barrier();
    else
        yield();
    return run.barrier_result;
}

/* All lanes of the mask have come: what each of them gets. */
static void complete(struct fiber *const *warp, const struct fiber *self)
{
    uint64_t given[WARP] = {0}, bits = 0;
    for (uint32_t lane = 0; lane < WARP; lane++) {
        if ((self->mask >> lane & 1) == 0)
            continue;
        if (warp[lane]->mask != self->mask || warp[lane]->wait != self->wait)
            refuse("its warp is in different functions, or under different masks");
        given[lane] = warp[lane]->value;
        bits |= (uint64_t)(warp[lane]->value != 0) << lane;
    }
    if (self->wait == AT_FUNCTION) {
        void *lanes[WARP];
        for (uint32_t lane = 0; lane < WARP; lane++) {
            lanes[lane] = (void *)(uintptr_t)given[lane];
            if (warp[lane]->function != self->function)
                refuse("its warp is in different functions");
        }
        self->function(lanes);
    }
    for (uint32_t lane = 0; lane < WARP; lane++) {
        if ((self->mask >> lane & 1) == 0)
            continue;
        if (self->wait == AT_EXCHANGE && (self->mask >> warp[lane]->source & 1) == 0)
            refuse("a shuffle from a lane that is not in the mask");
        if (self->wait != AT_FUNCTION)
            warp[lane]->value = self->wait == AT_BALLOT ? bits : given[warp[lane]->source];
        if (warp[lane] != self)
            warp[lane]->wait = READY;
    }
}

static uint64_t with_warp(enum wait wait, uint32_t mask, uint64_t value, uint32_t source)
{
    struct fiber *self = run.current;
    uint32_t index = self->self.thread.x, lane = index % WARP, *arrived = &run.arrived[index / WARP];
    self->wait = wait;
    self->mask = mask;
    self->value = value;
    self->source = source;
    *arrived |= 1u << lane;
    if ((mask >> lane & 1) == 0)
        refuse("the thread's own lane is not in the mask");
    if ((*arrived & mask) == mask) {
        complete(run.fibers + (index - lane), self);
        *arrived &= ~mask;
        self->wait = READY;
    } else {
        yield();
    }
    return self->value;
}

uint64_t kernel_host_exchange(uint32_t mask, uint64_t value, uint32_t source_lane)
{
    return with_warp(AT_EXCHANGE, mask, value, source_lane);
}

uint32_t kernel_host_ballot(uint32_t mask, int predicate)
{
    return (uint32_t)with_warp(AT_BALLOT, mask, predicate != 0, 0);
}

void kernel_host_warp(void (*function)(void *const *lanes), void *mine)
{
    run.current->function = function;
    with_warp(AT_FUNCTION, 0xffffffffu, (uint64_t)(uintptr_t)mine, 0);
}

const void *kernel_host_aligned(const void *at, uint64_t bytes)
{
    if ((uintptr_t)at % bytes != 0)
        refuse("an address that is not aligned");
    return at;
}

void kernel_host_copy(void *to, const void *from)
{
    struct fiber *self = run.current;
    ts_array_reserve((void **)&self->copies, &self->copy_capacity, self->copy_count + 1,
                     sizeof *self->copies);
    self->copies[self->copy_count++] = (struct copy){to, from, self->group};
}

void kernel_host_copy_commit(void)
{
    run.current->group++;
}

void kernel_host_copy_wait(uint32_t left)
{
    struct fiber *self = run.current;
    size_t kept = 0;
    for (size_t i = 0; i < self->copy_count; i++) {
        struct copy *c = &self->copies[i];
        if (c->group + left >= self->group)
            self->copies[kept++] = *c;
        else if (c->from)
            memcpy(c->to, c->from, 16);
        else
            memset(c->to, 0, 16);
    }
    self->copy_count = kept;
}

void *kernel_host_shared(uint64_t bytes)
{
    if (!run.shared) {
        run.shared = ts_xmalloc(bytes);
        run.shared_bytes = bytes;
        memset(run.shared, POISON, bytes);
    }
    if (run.shared_bytes != bytes)
        refuse("a second kind of shared memory");
    return run.shared;
}

void *kernel_host_dynamic(uint64_t bytes)
{
    if (bytes > dynamic_bytes)
        refuse("more shared memory than the launch gave");
    return kernel_host_shared(bytes);
}

/* --- blocks and launches -------------------------------------------------------------------------------- */

static void shuffle(uint32_t *items, uint32_t count, struct ts_rng *rng)
{
    for (uint32_t i = count; i > 1; i--) {
        uint32_t j = (uint32_t)(ts_rng_u64(rng) % i), item = items[j];
        items[j] = items[i - 1];
        items[i - 1] = item;
    }
}

/* Each thread as far as it comes. Returns how many have ended. */
static uint32_t pass(bool *moved)
{
    uint32_t ended = 0;
    *moved = false;
    for (uint32_t i = 0; i < run.threads; i++) {
        struct fiber *f = run.fibers[run.order[i]];
        if (f->wait == READY) {
            resume(f);
            *moved = true;
        }
        ended += f->wait == ENDED;
    }
    return ended;
}

static void run_block(uint32_t block, struct ts_rng *rng)
{
    bool moved = true;
    for (uint32_t i = 0; i < run.threads; i++) {
        run.fibers[i]->self.block.x = block;
        run.fibers[i]->wait = READY;
        run.fibers[i]->copy_count = 0;
    }
    memset(run.arrived, 0, sizeof run.arrived);
    run.at_barrier = run.true_ones = 0;
    while (pass(&moved) < run.threads) {
        if (!moved)
            refuse("waits for threads that do not come");
        if (wished_order > KERNEL_HOST_DESCENDING)
            shuffle(run.order, run.threads, rng);
    }
    ts_free(run.shared);
    run.shared = NULL;
}

/* Numbers 0 .. count - 1 as wished. */
static uint32_t *order_of(uint32_t count, struct ts_rng *rng)
{
    uint32_t *order = ts_xcalloc(count, sizeof *order);
    for (uint32_t i = 0; i < count; i++)
        order[i] = wished_order == KERNEL_HOST_DESCENDING ? count - 1 - i : i;
    if (wished_order > KERNEL_HOST_DESCENDING)
        shuffle(order, count, rng);
    return order;
}

static struct fiber *new_fiber(uint32_t thread)
{
    struct fiber *f = ts_xcalloc(1, sizeof *f);
    f->self.thread.x = thread;
    f->stack = ts_xaligned(64, STACK_BYTES);
    *(uint64_t *)(void *)f->stack = STACK_CANARY;
    make_place(&f->at, f->stack, STACK_BYTES, fiber_main);
    return f;
}

void kernel_host_launch(void (*kernel)(const void *args), const void *args, struct ts_cuda_dim grid,
                        struct ts_cuda_dim block)
{
    struct ts_rng rng;
    ts_rng_init(&rng, wished_order);
    TS_ASSERT(!run.running && grid.y == 1 && grid.z == 1 && block.y == 1 && block.z == 1);
    TS_ASSERT(block.x >= 1 && block.x <= KERNEL_HOST_THREADS_MAX);
    run.running = true;
    run.kernel = kernel;
    run.args = args;
    run.threads = block.x;
    run.order = order_of(run.threads, &rng);
    uint32_t *blocks = order_of(grid.x, &rng);
    for (uint32_t i = 0; i < run.threads; i++) {
        if (!run.fibers[i])
            run.fibers[i] = new_fiber(i);
        run.fibers[i]->self.block_dim = block;
        run.fibers[i]->self.grid_dim = grid;
    }
    for (uint32_t i = 0; i < grid.x; i++)
        run_block(blocks[i], &rng);
    ts_free(run.order);
    ts_free(blocks);
    run.running = false;
}
