/* A failure in words: what it says, how to repeat it, what is left of the script, the last events. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_impl.h"

#define LINES_KEPT  4000
#define LINE_BYTES  220
#define LINES_SHOWN 60
#define SHRINK_RUNS 400
#define FAST        TS_TEST_DATA "/../../conf/devices/modelled.json"
#define SLOW        TS_TEST_DATA "/devices/slow.json"

bool sim_mask_read(const char *list, bool *mask, uint32_t size)
{
    memset(mask, 0, size * sizeof *mask);
    if (strcmp(list, "none") == 0)
        return true;
    while (*list) {
        char *end;
        unsigned long from = strtoul(list, &end, 10), to = from;
        if (end == list)
            return false;
        if (*end == '-') {
            list = end + 1;
            to = strtoul(list, &end, 10);
            if (end == list)
                return false;
        }
        for (unsigned long i = from; i <= to && i < size; i++)
            mask[i] = true;
        list = *end == ',' ? end + 1 : end;
        if (*end && *end != ',')
            return false;
    }
    return true;
}

static void print_mask(const char *option, const bool *mask, uint32_t size)
{
    bool any = false;
    printf(" %s ", option);
    for (uint32_t i = 0; i < size; i++) {
        uint32_t end = i;
        if (!mask[i])
            continue;
        while (end + 1 < size && mask[end + 1])
            end++;
        printf(end > i ? "%s%u-%u" : "%s%u", any ? "," : "", i, end);
        any = true;
        i = end;
    }
    printf("%s", any ? "" : "none");
}

static const char *name_of(const struct sim_script *script, uint32_t node, char *out, size_t size)
{
    if (node == SIM_ROUTER)
        snprintf(out, size, "router");
    else if (node >= SIM_CLIENT)
        snprintf(out, size, "client%u", node - SIM_CLIENT);
    else
        snprintf(out, size, "%s", script->nodes[node].id);
    return out;
}

void sim_fault_print(const struct sim_script *script, uint32_t number, char *out, size_t size)
{
    const struct sim_fault *f = &script->faults[number];
    char a[32] = "", b[32] = "";
    if (f->kind == SIM_CANCEL || f->kind == SIM_DEADLINE)
        snprintf(a, sizeof a, "request %u", f->node);
    else if (f->node != SIM_NODE_NONE)
        name_of(script, f->node, a, sizeof a);
    if (f->other != SIM_NODE_NONE)
        name_of(script, f->other, b, sizeof b);
    snprintf(out, size, "fault %u at %.3f s: %s %s%s%s amount %u lasts %.3f s%s%s", number,
             (double)f->at / 1e9, sim_fault_names[f->kind], a, *b ? " > " : "", b, f->amount,
             (double)f->lasts / 1e9, f->aim < 0 ? "" : ", aims at ",
             f->aim < 0 ? "" : sim_state_names[f->aim]);
}

static void print_node(const struct sim_script *script, const struct sim_node *n)
{
    if (n->kind == CLOUD_WORKER)
        printf("  %s: %u blocks, %u rows%s%s\n", n->id, n->kv_blocks, n->worker.max_rows,
               n->host != SIM_NODE_NONE ? ", host of " : "",
               n->host != SIM_NODE_NONE ? script->nodes[n->host].id : "");
    else
        printf("  %s%s%s\n", n->id, n->kind == CLOUD_PLANNER ? ": " : "",
               n->kind == CLOUD_PLANNER ? n->planner.plan.algorithm->name : "");
}

void sim_script_print(const struct sim_script *script, const bool *faults, const bool *requests)
{
    char text[200];
    for (uint32_t i = 0; i < script->node_count; i++)
        print_node(script, &script->nodes[i]);
    for (uint32_t i = 0; i < script->fault_count; i++) {
        if (faults && !faults[i])
            continue;
        sim_fault_print(script, i, text, sizeof text);
        printf("  %s\n", text);
    }
    for (uint32_t i = 0; i < script->request_count; i++) {
        const struct sim_request *r = &script->requests[i];
        if (!requests || requests[i])
            printf("  request %u at %.3f s: client%u, %u in, %u out, %s%s\n", i, (double)r->at / 1e9,
                   r->client, r->prompt_count, r->sampling.max_tokens, r->codec ? r->codec : "default codec",
                   r->burst ? ", of a burst" : "");
    }
}

/* --- the last events --------------------------------------------------------------------------------- */

struct ring {
    char (*lines)[LINE_BYTES];
    size_t count;
};

/* Without envelopes. */
static void keep_line(void *context, const char *text)
{
    struct ring *ring = context;
    if (strstr(text, "heartbeat") || strstr(text, "<- tick") || strstr(text, "-> log") ||
        strstr(text, "drop={"))
        return;
    const char *from = strstr(text, "envelope={"), *to = from ? strstr(from, "msg={") : NULL;
    if (to)
        snprintf(ring->lines[ring->count++ % LINES_KEPT], LINE_BYTES, "%.*s%s", (int)(from - text), text,
                 to + 5);
    else
        snprintf(ring->lines[ring->count++ % LINES_KEPT], LINE_BYTES, "%s", text);
}

/* Those of the service that broke, and what it was told; all, if it is the router. */
static void print_ring(const struct ring *ring, const char *node)
{
    size_t kept = ring->count < LINES_KEPT ? ring->count : LINES_KEPT, shown = 0, at = ring->count;
    bool all = strcmp(node, "router") == 0 || strcmp(node, "rest") == 0 || !*node;
    const char *show[LINES_SHOWN];
    while (kept-- > 0 && shown < LINES_SHOWN) {
        const char *line = ring->lines[--at % LINES_KEPT];
        if (all || strstr(line, node))
            show[shown++] = line;
    }
    printf("last events of %s:\n", all ? "all" : node);
    while (shown > 0)
        printf("  %s\n", show[--shown]);
}

static void print_last(const struct sim_options *options, const char *node)
{
    struct ring ring = {.lines = calloc(LINES_KEPT, LINE_BYTES)};
    struct sim_options o = *options;
    struct sim_result *r = malloc(sizeof *r);
    o.line = keep_line;
    o.context = &ring;
    if (ring.lines && r) {
        sim_run(&o, r);
        print_ring(&ring, r->node[0] ? r->node : node);
    }
    free(ring.lines);
    free(r);
}

void sim_explain(uint64_t seed, const struct sim_result *first)
{
    bool faults[SIM_FAULTS_MAX] = {false}, requests[SIM_REQUESTS_MAX] = {false};
    struct sim_script *script = calloc(1, sizeof *script);
    struct sim_result *small = malloc(sizeof *small);
    if (!script || !small)
        abort();
    *small = *first;
    sim_script_draw(script, seed, FAST, SLOW);
    for (uint32_t i = 0; i < script->fault_count; i++)
        faults[i] = true;
    for (uint32_t i = 0; i < script->request_count; i++)
        requests[i] = true;
    printf("seed %llu fails: %s\n", (unsigned long long)seed, first->why);
    printf("repeat: build/release/bin/ts-sim-seed --seed %llu\n", (unsigned long long)seed);
    uint32_t runs = sim_shrink(seed, faults, requests, SHRINK_RUNS, small);
    if (runs > 1) {
        printf("smaller, after %u runs: %s\n", runs, small->why);
        printf("repeat: build/release/bin/ts-sim-seed --seed %llu", (unsigned long long)seed);
        print_mask("--faults", faults, script->fault_count);
        print_mask("--requests", requests, script->request_count);
        printf("\n");
    }
    sim_script_print(script, faults, requests);
    if (strstr(small->why, "signal"))
        printf("(no events of a process that was ended: run the command under a debugger)\n");
    else
        print_last(&(struct sim_options){.seed = seed, .faults = faults, .requests = requests}, small->node);
    fflush(stdout);
    free(script);
    free(small);
}
