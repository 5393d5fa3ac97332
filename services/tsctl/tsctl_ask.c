#include "services/tsctl/tsctl_ask.h"

#include "common/base/ts_clock.h"
#include "common/base/ts_rng.h"
#include "common/run/ts_net.h"
#include "proto/ts_wire.h"

static enum ts_status wait_answer(struct ts_net *net, enum ts_channel channel, enum ts_msg_kind answer,
                                  int timeout_ms, struct ts_arena *arena, struct ts_msg *out)
{
    ts_time until = ts_clock_now() + timeout_ms * TS_MS;
    struct ts_wire_counters counters = {0};
    for (ts_time now; (now = ts_clock_now()) < until;) {
        struct ts_net_message in;
        struct ts_envelope envelope;
        ts_net_poll(net, NULL, 0, (int)((until - now + TS_MS - 1) / TS_MS));
        while (ts_net_receive(net, &in, NULL) == TS_OK) {
            enum ts_status status =
                ts_wire_unpack(in.data, in.bytes, channel, arena, &envelope, out, &counters, NULL);
            ts_frame_unref(&in.frame);
            if (status == TS_OK && out->kind == answer)
                return TS_OK;
        }
    }
    return TS_ETIMEOUT;
}

enum ts_status tsctl_ask(const char *router, enum ts_channel channel, const struct ts_msg *question,
                         enum ts_msg_kind answer, int timeout_ms, struct ts_arena *arena, struct ts_msg *out,
                         struct ts_error *err)
{
    char endpoint[TS_ENDPOINT_BYTES];
    struct ts_envelope envelope = {.version = TS_PROTOCOL_VERSION, .incarnation = ts_random_u64()};
    struct ts_bytes bytes;
    enum ts_status status = ts_endpoint_of(router, channel, endpoint, err);
    if (status != TS_OK)
        return status;
    struct ts_net *net = ts_net_new(1);
    status = ts_net_dial(net, channel, 1, endpoint, err);
    if (status == TS_OK)
        status = ts_wire_pack(&envelope, question, arena, &bytes);
    if (status == TS_OK)
        status = ts_net_send(net, channel, 1, bytes.data, bytes.count, NULL);
    if (status == TS_OK && answer != TS_MSG_NONE) {
        status = wait_answer(net, channel, answer, timeout_ms, arena, out);
        if (status == TS_ETIMEOUT)
            ts_error_set(err, TS_ETIMEOUT, "no answer from the router at %s within %d ms: is it running?",
                         router, timeout_ms);
    }
    ts_net_destroy(&net);
    return status;
}
