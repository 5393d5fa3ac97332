/*
 * A whole cluster on one machine, in the foreground: starts the five services as children, waits until the
 * router sees all of them ready, prints one JSON line, and stops everything on SIGTERM. A child that dies
 * later is reported, not restarted: that is an operator's decision.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_clock.h"
#include "common/base/ts_mem.h"
#include "common/core/ts_codec_spec.h"
#include "common/run/ts_net.h"
#include "common/text/ts_json.h"
#include "gpu/model/ts_hf.h"
#include "services/planner/planner_conf.h"
#include "services/relay/relay_conf.h"
#include "services/router/router_conf.h"
#include "services/tsctl/tsctl.h"
#include "services/tsctl/tsctl_ask.h"
#include "services/worker/worker_conf.h"

#define UP_CHILDREN_MAX 256
#define UP_ARGS_MAX     48
#define ROUTER_PORTS    5

struct up_flags {
    struct ts_conf *conf;
    const char *host, *model, *engine, *codec, *record, *modelled_conf;
    uint32_t port, prefill, relay, decode, planner, ready_ms, stop_ms;
};

static const struct ts_option options[] = {
    {"host", TS_OPTION_STRING, offsetof(struct up_flags, host), "127.0.0.1", 0, 0,
     "address the services bind and use"},
    {"port", TS_OPTION_U32, offsetof(struct up_flags, port), "0", 0, 65530,
     "first of five router ports; 0 = any free ones"},
    {"model", TS_OPTION_STRING, offsetof(struct up_flags, model), NULL, 0, 0, "Hugging Face folder"},
    {"prefill", TS_OPTION_U32, offsetof(struct up_flags, prefill), "1", 0, 64, "prefill workers"},
    {"relay", TS_OPTION_U32, offsetof(struct up_flags, relay), "1", 0, 64,
     "relays; prefill worker i uses relay i mod N"},
    {"decode", TS_OPTION_U32, offsetof(struct up_flags, decode), "1", 0, 64, "decode workers"},
    {"planner", TS_OPTION_U32, offsetof(struct up_flags, planner), "1", 0, 8,
     "planners; the second waits for the first to die"},
    {"engine", TS_OPTION_CHOICE, offsetof(struct up_flags, engine), "auto|cpu|cuda:N|modelled", 0, 0,
     "what computes; auto = cuda:0, or the CPU where there is none"},
    {"modelled_conf", TS_OPTION_STRING, offsetof(struct up_flags, modelled_conf), NULL, 0, 0,
     "coefficients of the modelled device"},
    {"codec", TS_OPTION_STRING, offsetof(struct up_flags, codec), NULL, 0, 0, "default KV codec"},
    {"record", TS_OPTION_STRING, offsetof(struct up_flags, record), NULL, 0, 0,
     "folder for recordings, one file a service"},
    {"ready_ms", TS_OPTION_U32, offsetof(struct up_flags, ready_ms), "60000", 100, 1e7,
     "give up when not ready by then"},
    {"stop_ms", TS_OPTION_U32, offsetof(struct up_flags, stop_ms), "10000", 100, 1e7,
     "kill what did not stop by then"},
};

struct child {
    char service[16], id[32];
    pid_t pid; /* 0 = gone */
};

struct up {
    struct up_flags flags;
    const char *conf_path;
    char bin[4096];   /* folder of the programs */
    char scratch[64]; /* folder of the ipc sockets */
    char router[TS_ENDPOINT_BYTES];
    struct child children[UP_CHILDREN_MAX];
    size_t count;
    int signal_fd;
    bool failed;
};

struct args {
    char *items[UP_ARGS_MAX];
    size_t count;
};

static void add(struct args *a, char *text)
{
    TS_ASSERT(a->count + 1 < UP_ARGS_MAX);
    a->items[a->count++] = text;
    a->items[a->count] = NULL;
}

static void flag(struct args *a, const char *name, const char *value)
{
    if (!value || !*value)
        return;
    add(a, ts_xasprintf("--%s", name));
    add(a, ts_xstrdup(value));
}

static void free_args(struct args *a)
{
    for (size_t i = 0; i < a->count; i++)
        ts_free(a->items[i]);
}

static enum ts_status start(struct up *up, const char *service, const char *id, struct args *a,
                            struct ts_error *err)
{
    char *path = ts_xasprintf("%s/ts-%s", up->bin, service);
    struct child *child = &up->children[up->count];
    TS_ASSERT(up->count < UP_CHILDREN_MAX);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        setpgid(0, 0); /* a Ctrl-C reaches tsctl alone, which then stops the services in order */
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent)
            _exit(1);
        a->items[0] = path;
        execv(path, a->items);
        fprintf(stderr, "tsctl up: cannot start %s: %s\n", path, strerror(errno));
        _exit(127);
    }
    ts_free(path);
    if (pid < 0)
        return ts_error_set(err, TS_EIO, "cannot start %s: %s", service, strerror(errno));
    snprintf(child->service, sizeof child->service, "%s", service);
    snprintf(child->id, sizeof child->id, "%s", id);
    child->pid = pid;
    up->count++;
    return TS_OK;
}

static struct args begin(struct up *up, const char *id)
{
    struct args a = {.count = 0};
    add(&a, ts_xstrdup("")); /* argv[0], set in start() */
    flag(&a, "config", up->conf_path);
    flag(&a, "id", id);
    if (*up->flags.record) {
        char *file = ts_xasprintf("%s/%s.rec", up->flags.record, id);
        flag(&a, "record", file);
        ts_free(file);
    }
    return a;
}

static enum ts_status start_router(struct up *up, struct ts_error *err)
{
    struct args a = begin(up, "router");
    flag(&a, "listen", up->router);
    flag(&a, "codec", up->flags.codec);
    enum ts_status status = start(up, "router", "router", &a, err);
    free_args(&a);
    return status;
}

static enum ts_status start_planner(struct up *up, uint32_t i, struct ts_error *err)
{
    char id[32];
    snprintf(id, sizeof id, "planner%u", i);
    struct args a = begin(up, id);
    flag(&a, "router", up->router);
    enum ts_status status = start(up, "planner", id, &a, err);
    free_args(&a);
    return status;
}

static enum ts_status start_relay(struct up *up, uint32_t i, struct ts_error *err)
{
    char id[32], pool[TS_ENDPOINT_BYTES];
    snprintf(id, sizeof id, "relay%u", i);
    snprintf(pool, sizeof pool, "ipc://%s/relay%u", up->scratch, i);
    struct args a = begin(up, id);
    flag(&a, "router", up->router);
    flag(&a, "listen", pool);
    enum ts_status status = start(up, "relay", id, &a, err);
    free_args(&a);
    return status;
}

static enum ts_status start_worker(struct up *up, const char *service, uint32_t i, struct ts_error *err)
{
    char id[32], relay[32], pool[TS_ENDPOINT_BYTES], kv[TS_ENDPOINT_BYTES];
    snprintf(id, sizeof id, "%s%u", service, i);
    struct args a = begin(up, id);
    flag(&a, "router", up->router);
    flag(&a, "model", up->flags.model);
    flag(&a, "device", up->flags.engine);
    flag(&a, "modelled-conf", up->flags.modelled_conf);
    if (up->flags.relay > 0) {
        snprintf(relay, sizeof relay, "relay%u", i % up->flags.relay);
        snprintf(pool, sizeof pool, "ipc://%s/relay%u", up->scratch, i % up->flags.relay);
        flag(&a, "relay", relay);
        flag(&a, "pool", pool);
    }
    snprintf(kv, sizeof kv, "tcp://%s:*", up->flags.host);
    flag(&a, "kv-listen", kv);
    enum ts_status status = start(up, service, id, &a, err);
    free_args(&a);
    return status;
}

/* Whether all ports of a router from `base` on can be bound now. */
static bool ports_free(const char *host, int base)
{
    bool good = true;
    for (int i = 0; good && i < ROUTER_PORTS; i++) {
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(base + i))};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        good =
            inet_pton(AF_INET, host, &at.sin_addr) == 1 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0;
        close(fd);
    }
    return good;
}

static enum ts_status choose_address(struct up *up, struct ts_error *err)
{
    int port = (int)up->flags.port;
    struct in_addr address;
    if (inet_pton(AF_INET, up->flags.host, &address) != 1)
        return ts_error_set(err, TS_EINVAL,
                            "host = %s: expected an IPv4 address of this machine, e.g. 127.0.0.1",
                            up->flags.host);
    for (int tries = 0; port == 0 && tries < 200; tries++) {
        int candidate =
            20000 + (int)((unsigned)(ts_clock_now() / 1000 + tries * 7919 + getpid() * 31) % 40000u);
        if (ports_free(up->flags.host, candidate))
            port = candidate;
    }
    if (port != 0 && !ports_free(up->flags.host, port))
        return ts_error_set(err, TS_EIO,
                            "ports %d to %d of %s are not all free: stop their user, or give another --port "
                            "(0 = any free ones)",
                            port, port + ROUTER_PORTS - 1, up->flags.host);
    if (port == 0)
        return ts_error_set(err, TS_EIO, "no five free ports in a row at %s: give --port", up->flags.host);
    snprintf(up->router, sizeof up->router, "tcp://%s:%d", up->flags.host, port);
    return TS_OK;
}

/* Says once, before anything runs, what every worker would say. */
static enum ts_status check_model(const char *dir, struct ts_error *err)
{
    struct ts_hf *hf = NULL;
    enum ts_status status = ts_hf_open(dir, &hf, err);
    ts_hf_close(&hf);
    return status;
}

static enum ts_status check_flags(const struct up *up, struct ts_error *err)
{
    const struct up_flags *f = &up->flags;
    struct stat st;
    bool modelled = strcmp(f->engine, "modelled") == 0;
    if (f->prefill == 0 || f->decode == 0)
        return ts_error_set(err, TS_EINVAL, "no %s worker: --%s must be at least 1",
                            f->prefill ? "decode" : "prefill", f->prefill ? "decode" : "prefill");
    if (f->relay == 0)
        return ts_error_set(
            err, TS_EINVAL,
            "no relay: the KV cache reaches decode through one, so --relay must be at least 1");
    if (*f->model && stat(f->model, &st) != 0)
        return ts_error_set(err, TS_ENOTFOUND, "model folder %s: %s; give --model DIR, a Hugging Face folder",
                            f->model, strerror(errno));
    if (!*f->model && !modelled)
        return ts_error_set(err, TS_EINVAL,
                            "no model: set model in the group \"up\" of %s or give --model DIR",
                            up->conf_path);
    if (!modelled && check_model(f->model, err) != TS_OK)
        return err->status;
    if (*f->record && mkdir(f->record, 0700) != 0 && errno != EEXIST)
        return ts_error_set(err, TS_EIO, "cannot make the folder %s for recordings: %s", f->record,
                            strerror(errno));
    return TS_OK;
}

static enum ts_status start_all(struct up *up, struct ts_error *err)
{
    enum ts_status status = start_router(up, err);
    for (uint32_t i = 0; status == TS_OK && i < up->flags.planner; i++)
        status = start_planner(up, i, err);
    for (uint32_t i = 0; status == TS_OK && i < up->flags.relay; i++)
        status = start_relay(up, i, err);
    for (uint32_t i = 0; status == TS_OK && i < up->flags.decode; i++)
        status = start_worker(up, "decode", i, err);
    for (uint32_t i = 0; status == TS_OK && i < up->flags.prefill; i++)
        status = start_worker(up, "prefill", i, err);
    return status;
}

/* Takes ended children. Returns how many are still there. */
static size_t reap(struct up *up, bool expected)
{
    int status;
    size_t alive = 0;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        for (size_t i = 0; i < up->count; i++) {
            if (up->children[i].pid != pid)
                continue;
            up->children[i].pid = 0;
            if (expected)
                continue;
            up->failed = true;
            if (WIFSIGNALED(status))
                fprintf(stderr, "tsctl up: %s (pid %d) was killed by signal %d\n", up->children[i].id, pid,
                        WTERMSIG(status));
            else
                fprintf(stderr, "tsctl up: %s (pid %d) ended with exit code %d\n", up->children[i].id, pid,
                        WEXITSTATUS(status));
        }
    }
    for (size_t i = 0; i < up->count; i++)
        alive += up->children[i].pid != 0;
    return alive;
}

static bool all_ready(const struct up *up, const struct ts_msg_status_reply *r)
{
    size_t ready = 0;
    for (uint32_t i = 0; i < r->services.count; i++)
        ready += r->services.data[i].ready;
    return ready >= up->count && (r->number > 0 || up->flags.planner == 0);
}

/* Waits for a signal for at most `ms`; true when one came. */
static bool signalled(const struct up *up, int ms)
{
    struct signalfd_siginfo info;
    struct timespec pause = {.tv_nsec = ms * 1000000L};
    for (;;) {
        if (read(up->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
            if (info.ssi_signo != SIGCHLD)
                return true;
            continue;
        }
        if (ms == 0)
            return false;
        nanosleep(&pause, NULL);
        ms = 0;
    }
}

static enum ts_status wait_ready(struct up *up, struct ts_error *err)
{
    ts_time until = ts_clock_now() + up->flags.ready_ms * TS_MS;
    struct ts_arena arena;
    enum ts_status status = TS_ETIMEOUT;
    ts_arena_init(&arena);
    while (status == TS_ETIMEOUT && ts_clock_now() < until) {
        struct ts_msg question = {.kind = TS_MSG_STATUS}, answer;
        reap(up, false);
        if (up->failed)
            status =
                ts_error_set(err, TS_EIO, "a service ended during start; its own message above says why");
        else if (signalled(up, 0))
            status = ts_error_set(err, TS_ECLOSED, "stopped by a signal during start");
        else if (tsctl_ask(up->router, TS_CHANNEL_ADMIN, &question, TS_MSG_STATUS_REPLY, 250, &arena, &answer,
                           NULL) == TS_OK &&
                 all_ready(up, &answer.status_reply))
            status = TS_OK;
        else
            signalled(up, 20);
        ts_arena_reset(&arena);
    }
    if (status == TS_ETIMEOUT)
        ts_error_set(err, TS_ETIMEOUT,
                     "not all services were ready within %u ms: raise --ready-ms or look at their messages",
                     up->flags.ready_ms);
    ts_arena_fini(&arena);
    return status;
}

static void announce(const struct up *up)
{
    struct ts_json *doc = ts_json_new_object(), *list = ts_json_new_array();
    ts_json_put_string(doc, "router", up->router, strlen(up->router));
    for (size_t i = 0; i < up->count; i++) {
        struct ts_json *item = ts_json_new_object();
        ts_json_put_string(item, "service", up->children[i].service, strlen(up->children[i].service));
        ts_json_put_string(item, "id", up->children[i].id, strlen(up->children[i].id));
        ts_json_put_integer(item, "pid", up->children[i].pid);
        ts_json_put(list, NULL, &item);
    }
    ts_json_put(doc, "services", &list);
    char *text = ts_json_dump(doc, false);
    puts(text);
    fflush(stdout);
    ts_free(text);
    ts_json_destroy(&doc);
}

static void signal_all(const struct up *up, int signo)
{
    for (size_t i = up->count; i-- > 0;) {
        if (up->children[i].pid)
            kill(up->children[i].pid, signo);
    }
}

static void stop_all(struct up *up)
{
    ts_time until = ts_clock_now() + up->flags.stop_ms * TS_MS;
    signal_all(up, SIGTERM);
    while (reap(up, true) > 0 && ts_clock_now() < until)
        signalled(up, 10);
    if (reap(up, true) > 0) {
        fprintf(stderr, "tsctl up: killing what did not stop within %u ms\n", up->flags.stop_ms);
        signal_all(up, SIGKILL);
        while (reap(up, true) > 0)
            signalled(up, 10);
    }
}

static void remove_scratch(const struct up *up)
{
    for (uint32_t i = 0; i < up->flags.relay; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/relay%u", up->scratch, i);
        unlink(path);
    }
    rmdir(up->scratch);
}

static enum ts_status prepare(struct up *up, struct ts_error *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    up->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    ssize_t n = readlink("/proc/self/exe", up->bin, sizeof up->bin - 1);
    TS_ASSERT(n > 0);
    up->bin[n] = '\0';
    *strrchr(up->bin, '/') = '\0';
    snprintf(up->scratch, sizeof up->scratch, "/tmp/thunderserve-XXXXXX");
    if (!mkdtemp(up->scratch))
        return ts_error_set(err, TS_EIO, "cannot make a folder for sockets in /tmp: %s", strerror(errno));
    return choose_address(up, err);
}

static int run(struct up *up)
{
    struct ts_error err = {0};
    enum ts_status status = check_flags(up, &err);
    if (status != TS_OK)
        return tsctl_fail("up", 2, err.text);
    status = prepare(up, &err);
    if (status == TS_OK)
        status = start_all(up, &err);
    if (status == TS_OK)
        status = wait_ready(up, &err);
    if (status == TS_OK) {
        announce(up);
        while (!signalled(up, 100) && reap(up, false) > 0)
            ;
    }
    stop_all(up);
    remove_scratch(up);
    close(up->signal_fd);
    return status == TS_OK ? 0 : tsctl_fail("up", 1, err.text);
}

/* What the services would refuse at start is said once, before anything runs. */
static enum ts_status check_services(const char *path, struct ts_error *err)
{
    char *argv[] = {(char *)"tsctl up", (char *)"--config", (char *)path, NULL};
    struct router_conf router;
    struct planner_conf planner;
    struct relay_conf relay;
    struct worker_conf worker;
    const char *phases[] = {"prefill", "decode"};
    bool good = router_conf_load(3, argv, &router, err) != TS_CONF_ERROR;
    if (good)
        router_conf_free(&router);
    if (good && (good = planner_conf_load(3, argv, 0, &planner, err) != TS_CONF_ERROR))
        planner_conf_free(&planner);
    if (good && (good = relay_conf_load(3, argv, 0, &relay, err) != TS_CONF_ERROR))
        ts_conf_destroy(&relay.conf);
    for (size_t i = 0; good && i < TS_ARRAY_SIZE(phases); i++) {
        if ((good = worker_conf_load(phases[i], 3, argv, 0, &worker, err) != TS_CONF_ERROR))
            ts_conf_destroy(&worker.conf);
    }
    return good ? TS_OK : TS_EINVAL;
}

int tsctl_up(int argc, char **argv)
{
    struct up up = {.conf_path = NULL};
    struct ts_error err = {0};
    int code = 0;
    char *shifted[UP_ARGS_MAX + 2] = {argv[0], (char *)"--config"};
    if (argc < 2 || argc > UP_ARGS_MAX - 2)
        return tsctl_fail("up", 2,
                          "usage: tsctl up CONF [--model DIR] [--prefill N] [--relay N] [--decode N] "
                          "[--engine E] [--codec C]");
    bool positional = strncmp(argv[1], "--", 2) != 0;
    int given = 1;
    if (positional) {
        up.conf_path = argv[1];
        given = 2;
        shifted[given++] = argv[1];
    }
    for (int i = positional ? 2 : 1; i < argc; i++)
        shifted[given++] = argv[i];
    enum ts_conf_outcome outcome = ts_conf_load("up", options, TS_ARRAY_SIZE(options), given, shifted,
                                                &up.flags, NULL, &up.flags.conf, &err);
    if (outcome == TS_CONF_RUN && *up.flags.codec && ts_codec_check_option(up.flags.codec, &err) != TS_OK)
        outcome = TS_CONF_ERROR;
    if (outcome != TS_CONF_ERROR && positional && check_services(up.conf_path, &err) != TS_OK)
        outcome = TS_CONF_ERROR;
    if (outcome == TS_CONF_EXIT)
        ts_conf_well(up.flags.conf);
    if (outcome == TS_CONF_ERROR)
        code = tsctl_fail("up", 2, err.text);
    else if (outcome == TS_CONF_RUN)
        code = positional
                   ? run(&up)
                   : tsctl_fail("up", 2, "give the configuration file first: tsctl up conf/local.conf");
    ts_conf_destroy(&up.flags.conf);
    return code;
}
