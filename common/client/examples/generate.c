/* A prompt goes in, the whole text comes out.
 *     cc generate.c $(pkg-config --cflags --libs thunderserve) -o generate
 *     ./generate tcp://127.0.0.1:5555 "First Citizen:" */
#include <stdio.h>
#include <thunderserve/ts_client.h>

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s ROUTER PROMPT\n", argv[0]);
        return 2;
    }
    const char *routers[] = {argv[1]};
    struct ts_client_options options = {.routers = routers, .router_count = 1};
    struct ts_client *client;
    char why[TS_CLIENT_ERROR_BYTES];
    if (ts_client_open(&options, &client, why) != 0) {
        fprintf(stderr, "%s\n", why);
        return 1;
    }

    struct ts_client_request request = ts_client_request_defaults();
    request.prompt = argv[2];
    request.max_tokens = 40;
    request.temperature = 0; /* greedy: the same text each time */

    const struct ts_client_result *result;
    int code = 1;
    if (ts_client_generate(client, &request, 60000, &result, why) != 0) {
        fprintf(stderr, "%s\n", why);
    } else if (*result->error) {
        fprintf(stderr, "%s: %s\n", result->reason, result->error);
    } else {
        printf("%s\n", result->text);
        code = 0;
    }
    ts_client_close(&client);
    return code;
}
