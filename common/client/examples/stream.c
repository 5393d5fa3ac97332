/* Several prompts at once over one client; tokens are printed as they come, each with the number of its
 * stream. cc stream.c $(pkg-config --cflags --libs thunderserve) -o stream
 *     ./stream tcp://127.0.0.1:5555 "First Citizen:" "ROMEO:" "To be" */
#include <stdio.h>
#include <thunderserve/ts_client.h>

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s ROUTER PROMPT...\n", argv[0]);
        return 2;
    }
    const char *routers[] = {argv[1]};
    struct ts_client_options options = {.routers = routers, .router_count = 1};
    struct ts_client *client;
    struct ts_client_stream *stream;
    char why[TS_CLIENT_ERROR_BYTES];
    if (ts_client_open(&options, &client, why) != 0) {
        fprintf(stderr, "%s\n", why);
        return 1;
    }

    struct ts_client_request request = ts_client_request_defaults();
    request.max_tokens = 20;
    int open = 0, failed = 0;
    for (int i = 2; i < argc; i++) {
        request.prompt = argv[i];
        if (ts_client_start(client, &request, argv[i], &stream, why) == 0)
            open++;
        else
            fprintf(stderr, "%s\n", why);
    }

    while (open > 0) {
        struct ts_client_event event;
        ts_client_poll(client, -1, &event);
        if (event.kind == TS_CLIENT_TOKEN) {
            const char *prompt = ts_client_user(event.stream); /* what was given to ts_client_start */
            printf("%s [%u] %s\n", prompt, (unsigned)event.token.index, event.token.text);
        } else if (event.kind == TS_CLIENT_END) {
            const struct ts_client_result *result = ts_client_result(event.stream);
            printf("%s -> %s (%s, %.0f ms to the first token)\n", (const char *)ts_client_user(event.stream),
                   result->text, result->finish, result->ttft_ms);
            failed += *result->error != '\0';
            ts_client_release(&event.stream);
            open--;
        }
    }
    ts_client_close(&client);
    return failed ? 1 : 0;
}
