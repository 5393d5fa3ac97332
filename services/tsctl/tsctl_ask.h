/*
 * One question to a router, one answer: what the short verbs (status, why, cancel, drain) do.
 */
#ifndef TSCTL_ASK_H
#define TSCTL_ASK_H

#include "common/core/ts_msg.h"

/* Sends `question` on a channel of the router at `router` and waits for a message of kind `answer`
 * (TS_MSG_NONE: waits for none). The answer's spans live in `arena`. */
enum ts_status tsctl_ask(const char *router, enum ts_channel channel, const struct ts_msg *question,
                         enum ts_msg_kind answer, int timeout_ms, struct ts_arena *arena, struct ts_msg *out,
                         struct ts_error *err);

#endif
