#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "common/base/ts_clock.h"
#include "services/tsctl/tsctl.h"
#include "services/tsctl/tsctl_plan_world.h"

#define STEP_WORK      64 /* between two looks at the clock: some milliseconds */
#define BOUND_WORK     64 /* shapes priced, likewise */
#define PROGRESS_AFTER (1 * TS_S)
#define PROGRESS_EVERY (TS_S / 5) /* on a terminal; in a file once in PROGRESS_AFTER */

static volatile sig_atomic_t interrupted;

static void interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

struct clock {
    ts_time start, end, next; /* `next` line of progress */
    bool terminal, shown, progress;
};

/* The second Ctrl-C ends the process as usual. */
static void clock_start(struct clock *c, const struct tsctl_plan_search *search)
{
    struct sigaction action = {.sa_handler = interrupt, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    interrupted = 0;
    c->start = ts_clock_now();
    c->end = c->start + (ts_time)(search->seconds * (double)TS_S);
    c->next = c->start + PROGRESS_AFTER;
    c->terminal = isatty(STDERR_FILENO);
    c->progress = c->terminal || search->progress;
    c->shown = false;
}

static void clock_stop(struct clock *c)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (c->shown && c->terminal)
        fprintf(stderr, "\r\033[K");
}

static bool clock_out(const struct clock *c, ts_time now)
{
    return interrupted || now >= c->end;
}

static void show(struct clock *c, ts_time now, const char *name, const char *words)
{
    if (!c->progress || now < c->next)
        return;
    fprintf(stderr, "%s%s: %s (%.1f s)%s", c->terminal ? "\r\033[K" : "", name, words,
            (double)(now - c->start) / (double)TS_S, c->terminal ? "" : "\n");
    fflush(stderr);
    c->next = now + (c->terminal ? PROGRESS_EVERY : PROGRESS_AFTER);
    c->shown = true;
}

/* The weights that the largest group can hold: the best lots of up to TS_TP_MAX equal devices of a node, one
 * for each stage. */
static double largest_group_bytes(const struct tsctl_plan_world *world)
{
    const struct ts_cluster *cluster = world->cluster;
    uint32_t stages = 0;
    double lots[TS_STAGES_MAX] = {0}, sum = 0; /* largest first */
    for (uint32_t c = 0; c < cluster->cell_count; c++) {
        double usable = ts_cost_usable_bytes(&cluster->types[cluster->cells[c].type]);
        for (uint32_t left = cluster->cells[c].count, tp; left > 0; left -= tp) {
            for (tp = TS_TP_MAX; tp > left || world->model.heads % tp; tp /= 2)
                ;
            double bytes = tp * usable;
            for (uint32_t i = 0; i < world->problem.max_stages; i++) {
                double worse = lots[i];
                if (bytes <= worse)
                    continue;
                lots[i] = bytes;
                bytes = worse;
            }
        }
    }
    for (; stages < world->problem.max_stages; stages++)
        sum += lots[stages];
    return sum;
}

static enum ts_status no_plan(const struct tsctl_plan_world *world, const struct tsctl_plan_search *search,
                              struct ts_error *err)
{
    double need = world->model.layers * ts_cost_layer_weight_bytes(&world->model) +
                  ts_cost_head_weight_bytes(&world->model);
    if (!search->finished)
        return ts_error_set(err, TS_ENOTFOUND,
                            "%s found no plan before it was stopped; give it more than %g s (--time-limit)",
                            search->algorithm->name, search->seconds);
    return ts_error_set(
        err, TS_ENOTFOUND,
        "%s finds no plan: the weights of model \"%s\" take %.1f GB, and the largest group of "
        "cluster \"%s\" (up to %u stages) has %.1f GB usable; add devices, raise --max-stages, "
        "or take a smaller model",
        search->algorithm->name, world->model.name, need / 1e9, world->cluster->name,
        world->problem.max_stages, largest_group_bytes(world) / 1e9);
}

enum ts_status tsctl_plan_search(const struct tsctl_plan_world *world, struct tsctl_plan_search *search,
                                 struct ts_error *err)
{
    struct clock c;
    struct plan_search *run = search->algorithm->open(&world->problem, err);
    if (!run)
        return ts_error_prefix(err, "algorithm %s", search->algorithm->name);
    clock_start(&c, search);
    search->work = 0;
    do {
        char words[160] = "";
        search->finished = search->algorithm->step(run, STEP_WORK);
        search->work += STEP_WORK;
        search->algorithm->describe(run, words, sizeof words);
        show(&c, ts_clock_now(), search->algorithm->name, words);
    } while (!search->finished && !clock_out(&c, ts_clock_now()));
    search->plan = search->algorithm->best(run);
    search->algorithm->close(&run);
    clock_stop(&c);
    return search->plan ? TS_OK : no_plan(world, search, err);
}
