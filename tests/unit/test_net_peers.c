/* Who is forgotten when a bound socket has had as many peers as it remembers: here 4 (NET_PEERS_MAX). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/run/ts_net.h"

static struct ts_net *server;
static char endpoint[TS_ENDPOINT_BYTES];

/* Says one word on a socket of its own; returns the number that the server gives to whom it comes from. */
static uint64_t say(struct ts_net *client, uint64_t socket)
{
    struct ts_net_message got = {.peer = 0};
    if (ts_net_send(client, TS_CHANNEL_CLIENT, socket, "word", 4, NULL) != TS_OK)
        fail_msg("socket %d takes nothing", (int)socket);
    assert_int_equal(ts_net_poll(server, NULL, 0, 5000), TS_OK);
    assert_int_equal(ts_net_receive(server, &got, NULL), TS_OK);
    assert_int_equal(got.bytes, 4);
    return got.peer;
}

static void dial(struct ts_net *client, uint64_t socket)
{
    struct ts_error err = {0};
    if (ts_net_dial(client, TS_CHANNEL_CLIENT, socket, endpoint, &err) != TS_OK)
        fail_msg("%s", err.text);
}

/* A worker that goes on talking keeps its number, whoever comes; a client that is gone does not. */
static void test_silent(void **state)
{
    struct ts_net *client = ts_net_new(1);
    struct ts_error err = {0};
    (void)state;
    server = ts_net_new(1);
    snprintf(endpoint, sizeof endpoint, "ipc:///tmp/test-net-peers-%d", (int)getpid());
    if (ts_net_bind(server, TS_CHANNEL_CLIENT, endpoint, NULL, &err) != TS_OK)
        fail_msg("%s", err.text);
    dial(client, 1);
    dial(client, 2);
    uint64_t worker = say(client, 1), idle = say(client, 2);
    for (uint64_t i = 3; i < 40; i++) {
        assert_int_equal(say(client, 1), worker);
        dial(client, i);
        uint64_t number = say(client, i);
        assert_true(number != worker && number != idle);
        assert_int_equal(say(client, i), number);
    }
    assert_int_equal(ts_net_send(server, TS_CHANNEL_CLIENT, worker, "word", 4, NULL), TS_OK);
    assert_int_equal(ts_net_send(server, TS_CHANNEL_CLIENT, idle, "word", 4, NULL), TS_ECLOSED);
    ts_net_destroy(&client);
    ts_net_destroy(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_silent)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
