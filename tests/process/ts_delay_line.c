/*
 * ts-delay-line: a wire with delay, jitter and loss between two network namespaces, for kernels without
 * netem. It makes a TUN device of the same name in each and carries packets from one to the other. What
 * befalls a packet is a function of the seed, its direction and its number there, so that a run can be
 * foretold: --draws N prints it and ends, without rights. Order is kept: a packet never overtakes the one
 * before it, as in the queue of a router. The queue of a direction is bounded; what finds it full is dropped
 * and counted. A rate is set from outside, by tc tbf on the devices.
 *
 * Prints `ready` once the devices are there, and on SIGTERM or SIGINT a line of counts for each direction.
 * One thread; needs root.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/base/ts_clock.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"

#define MTU_MAX 65535u
#define BURST   64 /* packets read before due ones are written */
#define MILLION 1000000u

struct options {
    const char *netns[2], *device;
    uint64_t delay_us, jitter_us, loss_ppm, seed, queue, mtu, draws;
};

struct packet {
    ts_time due;
    size_t bytes;
    uint8_t *data;
};

struct direction {
    int from, to;           /* devices */
    struct packet *packets; /* ring of `queue` */
    uint8_t *data;          /* of all of them, `mtu` bytes each */
    uint64_t head, count;
    ts_time last_due;
    uint64_t seen, lost, dropped, refused, passed, bytes;
};

struct line {
    struct options options;
    struct direction directions[2];
    int signals;
};

static int fail(const char *what, const char *name)
{
    fprintf(stderr, "ts-delay-line: %s %s: %s\n", what, name, strerror(errno));
    return -1;
}

/* The fate of packet `index` of a direction: how much later than the delay it comes, or that it does not. */
static bool fate(const struct options *o, unsigned direction, uint64_t index, int64_t *extra_us)
{
    uint32_t word[4];
    ts_philox(o->seed * 2 + direction, index, word);
    uint64_t spread = 2 * o->jitter_us + 1;
    *extra_us = (int64_t)(word[1] * spread >> 32) - (int64_t)o->jitter_us;
    return (uint64_t)word[0] * MILLION >> 32 >= o->loss_ppm;
}

static void print_draws(const struct options *o)
{
    for (uint64_t i = 0; i < o->draws; i++) {
        for (unsigned d = 0; d < 2; d++) {
            int64_t extra;
            bool passes = fate(o, d, i, &extra);
            printf("%u %" PRIu64 " %s %" PRId64 "\n", d, i, passes ? "passes" : "lost", extra);
        }
    }
}

/* A TUN device in that namespace, where this process then is; -1 = refused. */
static int open_device(const char *netns, const char *name)
{
    char path[256];
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    snprintf(path, sizeof path, "/run/netns/%s", netns);
    int ns = open(path, O_RDONLY | O_CLOEXEC);
    if (ns < 0)
        return fail("cannot open the namespace", path);
    int rc = setns(ns, CLONE_NEWNET);
    close(ns);
    if (rc != 0)
        return fail("cannot enter the namespace", path);
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return fail("cannot open", "/dev/net/tun");
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    if (ioctl(fd, TUNSETIFF, &request) != 0) {
        close(fd);
        return fail("cannot make the device", name);
    }
    return fd;
}

/* Takes one packet of the device; false when there is none. */
static bool take(struct line *line, unsigned side)
{
    struct direction *d = &line->directions[side];
    const struct options *o = &line->options;
    static uint8_t over[MTU_MAX]; /* read and forgotten: the queue is full */
    bool full = d->count == o->queue;
    struct packet *p = &d->packets[(d->head + d->count) % o->queue];
    ssize_t bytes = read(d->from, full ? over : p->data, o->mtu);
    int64_t extra_us;
    if (bytes <= 0)
        return false;
    if (!fate(o, side, d->seen++, &extra_us)) {
        d->lost++;
    } else if (full) {
        d->dropped++;
    } else {
        ts_time delay = ((int64_t)o->delay_us + extra_us) * TS_US;
        ts_time due = ts_clock_now() + (delay > 0 ? delay : 0);
        p->due = d->last_due = due > d->last_due ? due : d->last_due;
        p->bytes = (size_t)bytes;
        d->count++;
    }
    return true;
}

/* Hands over what is due. Returns when the next packet is. */
static ts_time give(struct line *line, unsigned side)
{
    struct direction *d = &line->directions[side];
    ts_time now = ts_clock_now();
    while (d->count > 0) {
        const struct packet *p = &d->packets[d->head];
        if (p->due > now)
            return p->due;
        ssize_t written = write(d->to, p->data, p->bytes);
        if (written == (ssize_t)p->bytes) {
            d->passed++;
            d->bytes += p->bytes;
        } else {
            d->refused++;
        }
        d->head = (d->head + 1) % line->options.queue;
        d->count--;
    }
    return TS_TIME_NEVER;
}

static void carry(struct line *line)
{
    struct pollfd fds[] = {{.fd = line->directions[0].from, .events = POLLIN},
                           {.fd = line->directions[1].from, .events = POLLIN},
                           {.fd = line->signals, .events = POLLIN}};
    while (!(fds[2].revents & POLLIN)) {
        ts_time next = TS_TIME_NEVER;
        bool more = false;
        for (unsigned side = 0; side < 2; side++) {
            int burst = 0;
            while (burst < BURST && take(line, side))
                burst++;
            more = more || burst == BURST;
            ts_time due = give(line, side);
            next = due < next ? due : next;
        }
        ts_time wait = more ? 0 : next == TS_TIME_NEVER ? TS_S : next - ts_clock_now();
        wait = wait < 0 ? 0 : wait;
        struct timespec timeout = {.tv_sec = wait / TS_S, .tv_nsec = wait % TS_S};
        if (ppoll(fds, 3, &timeout, NULL) < 0 && errno != EINTR)
            return;
    }
}

static void print_counts(const struct line *line)
{
    for (unsigned side = 0; side < 2; side++) {
        const struct direction *d = &line->directions[side];
        printf("{\"from\": %u, \"seen\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"dropped\": %" PRIu64
               ", \"refused\": %" PRIu64 ", \"passed\": %" PRIu64 ", \"queued\": %" PRIu64
               ", \"bytes\": %" PRIu64 "}\n",
               side, d->seen, d->lost, d->dropped, d->refused, d->passed, d->count, d->bytes);
    }
}

static void open_direction(struct direction *d, const struct options *o, int from, int to)
{
    *d = (struct direction){.from = from,
                            .to = to,
                            .packets = ts_xcalloc(o->queue, sizeof *d->packets),
                            .data = ts_xmalloc(o->queue * o->mtu)};
    for (uint64_t i = 0; i < o->queue; i++)
        d->packets[i].data = d->data + i * o->mtu;
}

static int run(struct line *line)
{
    int fds[2];
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    line->signals = signalfd(-1, &set, SFD_CLOEXEC);
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    for (int i = 0; i < 2; i++) {
        fds[i] = open_device(line->options.netns[i], line->options.device);
        if (fds[i] < 0)
            return 1;
    }
    for (int i = 0; i < 2; i++)
        open_direction(&line->directions[i], &line->options, fds[i], fds[1 - i]);
    puts("ready");
    fflush(stdout);
    carry(line);
    print_counts(line);
    for (int i = 0; i < 2; i++) {
        close(fds[i]);
        ts_free(line->directions[i].packets);
        ts_free(line->directions[i].data);
    }
    close(line->signals);
    return 0;
}

static bool parse_number(const char *text, uint64_t *out)
{
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && text[0] != '-';
}

static bool parse(int argc, char **argv, struct options *o)
{
    static const struct option names[] = {{"netns-a", 1, NULL, 'a'},
                                          {"netns-b", 1, NULL, 'b'},
                                          {"device", 1, NULL, 'd'},
                                          {"delay-us", 1, NULL, 0},
                                          {"jitter-us", 1, NULL, 1},
                                          {"loss-ppm", 1, NULL, 2},
                                          {"seed", 1, NULL, 3},
                                          {"queue", 1, NULL, 4},
                                          {"mtu", 1, NULL, 5},
                                          {"draws", 1, NULL, 6},
                                          {0}};
    uint64_t *const numbers[] = {&o->delay_us, &o->jitter_us, &o->loss_ppm, &o->seed,
                                 &o->queue,    &o->mtu,       &o->draws};
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (c == 'a' || c == 'b')
            o->netns[c - 'a'] = optarg;
        else if (c == 'd')
            o->device = optarg;
        else if (c > 6 || !parse_number(optarg, numbers[c]))
            return false;
    }
    return optind == argc && o->queue > 0 && o->queue <= MILLION && o->mtu > 0 && o->mtu <= MTU_MAX &&
           o->loss_ppm <= MILLION && o->delay_us <= 60 * MILLION && o->jitter_us <= o->delay_us &&
           (o->draws || (o->netns[0] && o->netns[1]));
}

int main(int argc, char **argv)
{
    struct line line = {.options = {.device = "wire", .seed = 1, .queue = 16384, .mtu = 1500}};
    if (!parse(argc, argv, &line.options)) {
        fprintf(stderr, "usage: ts-delay-line --netns-a NAME --netns-b NAME [--device NAME] [--delay-us N] "
                        "[--jitter-us N, at most the delay] [--loss-ppm N] [--seed N] [--queue PACKETS] "
                        "[--mtu N] [--draws N]\n");
        return 2;
    }
    if (line.options.draws > 0) {
        print_draws(&line.options);
        return 0;
    }
    return run(&line);
}
