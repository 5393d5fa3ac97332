/*
 * Thousands of transfers over a network that damages, loses, repeats, swaps, cuts and stalls, between
 * processes that are killed at every step: never a wrong byte at a decode worker, never a block, handle or
 * copy left, each end told once and with its reason, and a request that comes when the storm is over is
 * served.
 *
 *     test_transfer_faults [TRANSFERS]        1000 unless given
 *     test_transfer_faults --case N           one world, told step by step where it ends
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/core/ts_terms.h"
#include "faulty.h"

#define STEPS_MAX      200000 /* a world that takes more goes nowhere */
#define STORM_STEPS    4000
#define STORM_ATTEMPTS 4 /* of each request; what comes then is undisturbed */
#define QUIET_TIME     (120 * TS_S)

static uint64_t transfers_wanted = 1000, only_case;

struct counts {
    uint64_t worlds, transfers, verified, refeeds, killed, checked, repeated, present, steps;
    uint64_t fates[FATES], reasons[TS_REASON_LAST + 1];
};

static void ask(struct faulty_world *w)
{
    static const char *const codecs[] = {"none", "i8", "i4", "i4h", "k8v4h", "lz16"};
    struct faulty_asked *r = &w->router.asked[w->router.asked_count++];
    uint64_t key = ts_rng_u64(&w->rng), codec = ts_rng_below(&w->rng, TS_ARRAY_SIZE(codecs));
    uint64_t tokens = 1 + ts_rng_below(&w->rng, ts_rng_below(&w->rng, 4) ? 60 : 120);
    const char *name = codecs[codec];
    bool long_one = w->layout.blocks > FAULTY_BLOCKS;
    if (long_one) { /* spans of 256 tokens */
        name = "i4hc";
        tokens += 200;
    }
    *r = (struct faulty_asked){.attempt = -1};
    uint64_t fork = UINT32_MAX, other = key;
    if (w->router.asked_count > 1 &&
        ts_rng_below(&w->rng, 2)) { /* begins as an earlier one, and may go on so */
        const struct faulty_request *before =
            &w->router.asked[ts_rng_below(&w->rng, (uint64_t)w->router.asked_count - 1)].request;
        key = before->key;
        name = before->codec_name;
        tokens = before->prompt_count + ts_rng_below(&w->rng, long_one ? 150 : 60);
        fork = ts_rng_below(&w->rng, 2 * tokens);
    }
    r->retry_at = w->now + (ts_time)ts_rng_below(&w->rng, 200) * TS_MS;
    faulty_request_init(&r->request, key, (uint32_t)tokens, name);
    if (fork < tokens)
        faulty_request_fork(&r->request, (uint32_t)fork, other);
}

/* Every fourth world has no fault but a kill, of each process at each step in turn; the others have what was
 * drawn, and one in four of them a kill, too. */
static void draw(struct faulty_world *w, uint64_t number)
{
    uint64_t turn = number / 4, kill = ts_rng_below(&w->rng, 4);
    uint64_t step = 1 + ts_rng_below(&w->rng, 600), node = ts_rng_below(&w->rng, 3);
    w->storm = true;
    if (number % 4 == 0) {
        w->kill_node = (int)(FAULTY_RELAY + turn % 3);
        w->kill_step = 1 + turn / 3;
        return;
    }
    w->kill_step = kill == 0 ? step : 0;
    w->kill_node = (int)(FAULTY_RELAY + node);
    for (enum faulty_fate fate = 0; fate < FATES; fate++) {
        uint64_t most = fate == FATE_CUT || fate == FATE_STALL ? 12 : 60;
        uint64_t odds = ts_rng_below(&w->rng, most), none = ts_rng_below(&w->rng, 2);
        w->odds[fate] = none ? 0 : (uint32_t)odds;
    }
}

static void calm(struct faulty_world *w)
{
    w->storm = false;
    w->kill_step = 0;
}

static bool storm_over(const struct faulty_world *w)
{
    return w->steps > STORM_STEPS || w->router.attempt_count >= STORM_ATTEMPTS * w->router.asked_count;
}

static void until_done(struct faulty_world *w, ts_time limit)
{
    ts_time began = w->now;
    while (!faulty_router_done(w) && w->fault.status == TS_OK) {
        if (w->storm && storm_over(w)) {
            calm(w);
            began = w->now;
        }
        if (!w->storm && w->now > began + limit)
            faulty_broken(w, "a request was not served in %lld s without a fault", (long long)(limit / TS_S));
        if (w->steps > STEPS_MAX || !faulty_step(w))
            faulty_broken(w, "nothing goes on");
    }
}

/* What is still on its way ends by itself. */
static void until_rest(struct faulty_world *w)
{
    ts_time until = w->now + 10 * TS_S;
    while (w->now < until && w->fault.status == TS_OK)
        faulty_step(w);
    if (w->fault.status == TS_OK)
        faulty_at_rest(w);
}

static void add_up(struct counts *c, const struct faulty_world *w)
{
    c->worlds++;
    c->steps += w->steps;
    c->killed += w->kills;
    c->checked += w->checked;
    c->repeated += w->repeated;
    c->present += w->present;
    for (int i = 0; i < FATES; i++)
        c->fates[i] += w->fates[i];
    for (int i = 0; i < w->router.attempt_count; i++) {
        const struct faulty_attempt *a = &w->router.attempts[i];
        c->transfers += a->begun;
        c->refeeds += a->begun && a->refeed;
        c->verified += a->verified;
        if (a->transfers)
            c->reasons[a->reason]++;
    }
}

static void play(uint64_t number, struct counts *c)
{
    struct faulty_world *w = test_malloc(sizeof *w);
    faulty_begin(w, number + 1);
    uint64_t requests = 1 + ts_rng_below(&w->rng, 3);
    for (uint64_t i = 0; i < requests; i++)
        ask(w);
    draw(w, number);
    until_done(w, QUIET_TIME);
    calm(w);
    ask(w); /* and now a last one, undisturbed */
    until_done(w, QUIET_TIME);
    until_rest(w);
    if (w->fault.status != TS_OK)
        fail_msg("world %llu, step %llu, at %.3f s: %s\nagain: test_transfer_faults --case %llu",
                 (unsigned long long)number, (unsigned long long)w->steps, (double)w->now / TS_S,
                 w->fault.text, (unsigned long long)number);
    faulty_end(w);
    add_up(c, w);
    test_free(w);
}

static void print(const struct counts *c)
{
    static const char *const fates[] = {"flip",   "damage", "forge", "truncate", "lose",
                                        "repeat", "swap",   "cut",   "stall"};
    printf(
        "%llu worlds, %llu steps, %llu transfers, %llu of them from copies, %llu verified, %llu compared\n",
        (unsigned long long)c->worlds, (unsigned long long)c->steps, (unsigned long long)c->transfers,
        (unsigned long long)c->refeeds, (unsigned long long)c->verified, (unsigned long long)c->checked);
    for (int i = 0; i < FATES; i++)
        printf("%s %llu, ", fates[i], (unsigned long long)c->fates[i]);
    printf("kill %llu; chunks sent again %llu, blocks not sent %llu; ends:", (unsigned long long)c->killed,
           (unsigned long long)c->repeated, (unsigned long long)c->present);
    for (int i = 0; i <= TS_REASON_LAST; i++) {
        if (c->reasons[i])
            printf(" %s %llu", ts_reason_name((enum ts_reason)i), (unsigned long long)c->reasons[i]);
    }
    printf("\n");
}

static void test_faults(void **state)
{
    struct counts c = {.worlds = 0};
    (void)state;
    for (uint64_t number = 0; c.transfers < transfers_wanted; number++)
        play(number, &c);
    print(&c);
    if (transfers_wanted < 1000)
        return;
    for (int i = 0; i < FATES; i++)
        assert_true(c.fates[i] > 0);
    assert_true(c.killed > 0 && c.refeeds > 0 && c.checked >= c.worlds);
    /* Most transfers come through; what is damaged is asked for again, and what no checksum sees is found. */
    assert_true(c.verified * 3 > c.transfers && c.reasons[TS_REASON_NONE] > 0);
    assert_true(c.repeated * 2 > c.fates[FATE_DAMAGE] && c.reasons[TS_REASON_KV_CORRUPT] > 0);
    assert_true(c.reasons[TS_REASON_PEER_LOST] > 0 && c.present > 0);
}

static void test_one(void **state)
{
    struct counts c = {.worlds = 0};
    (void)state;
    play(only_case, &c);
    print(&c);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest all[] = {cmocka_unit_test(test_faults)}, one[] = {cmocka_unit_test(test_one)};
    if (argc == 3 && strcmp(argv[1], "--case") == 0) {
        only_case = strtoull(argv[2], NULL, 10);
        return cmocka_run_group_tests(one, NULL, NULL);
    }
    if (argc > 1)
        transfers_wanted = strtoull(argv[1], NULL, 10);
    return cmocka_run_group_tests(all, NULL, NULL);
}
