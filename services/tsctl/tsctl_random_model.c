/* A random model as a folder: what quality is measured on where no trained model shows a fault of keys. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/ts_assert.h"
#include "gpu/engine/random_model.h"
#include "services/tsctl/tsctl.h"

struct model_flags {
    struct ts_conf *conf;
    const char *type, *dtype;
    uint32_t hidden, intermediate, layers, heads, kv_heads, head_dim, vocab, context, outliers;
    double gain, sharpness, key_bias, rope_theta;
    uint64_t seed;
};

#define O(field, kind, fallback, lo, hi, text)                                                               \
    {                                                                                                        \
#field, kind, offsetof(struct model_flags, field), fallback, lo, hi, text                            \
    }

static const struct ts_option options[] = {
    O(type, TS_OPTION_CHOICE, "llama|mistral|qwen2|qwen3", 0, 0, "family"),
    O(hidden, TS_OPTION_U32, "256", 8, 65536, "width"),
    O(intermediate, TS_OPTION_U32, "512", 8, 262144, "width of the MLP"),
    O(layers, TS_OPTION_U32, "4", 1, 512, "layers"),
    O(heads, TS_OPTION_U32, "4", 1, 1024, "query heads"),
    O(kv_heads, TS_OPTION_U32, "2", 1, 1024, "KV heads; divides --heads"),
    O(head_dim, TS_OPTION_U32, "64", 2, 512, "elements of a head"),
    O(vocab, TS_OPTION_U32, "512", 2, 1e6, "ids"),
    O(context, TS_OPTION_U32, "4096", 16, 1e6, "tokens"),
    O(dtype, TS_OPTION_CHOICE, "float16|bfloat16|float32", 0, 0, "of the weights"),
    O(gain, TS_OPTION_F64, "1.5", 0.01, 100, "of each matrix; logits spread by about as much"),
    O(sharpness, TS_OPTION_F64, "1.5", 0, 100, "standard deviation of attention's scores; 0 = from --gain"),
    O(key_bias, TS_OPTION_F64, "0", -1e4, 1e4,
      "qwen2: on three channels of each KV head, 0.4 of it on a 4th"),
    O(outliers, TS_OPTION_U32, "0", 0, 512, "channels of each KV head with keys 8 times as large"),
    O(rope_theta, TS_OPTION_F64, "1e6", 1.1, 1e12, "of the rotation"),
    O(seed, TS_OPTION_U64, "1", 0, 9e15, "equal seeds give equal bytes"),
};

static int run(const struct model_flags *f, const struct ts_conf_strings *arguments)
{
    const struct ts_random_model model = {.type = f->type,
                                          .hidden = f->hidden,
                                          .intermediate = f->intermediate,
                                          .layers = f->layers,
                                          .heads = f->heads,
                                          .kv_heads = f->kv_heads,
                                          .head_dim = f->head_dim,
                                          .vocab = f->vocab,
                                          .context = f->context,
                                          .dtype = f->dtype[0] == 'b'   ? TS_DTYPE_BF16
                                                   : f->dtype[5] == '1' ? TS_DTYPE_F16
                                                                        : TS_DTYPE_F32,
                                          .gain = f->gain,
                                          .seed = f->seed,
                                          .rope_theta = f->rope_theta,
                                          .sharpness = f->sharpness,
                                          .key_bias = f->key_bias,
                                          .outliers = f->outliers};
    struct ts_error err = {0};
    if (arguments->count != 1)
        return tsctl_fail("random-model", 2, "usage: tsctl random-model [--type T] [--key-bias X] ... DIR");
    if (f->heads % f->kv_heads != 0 || f->outliers > f->head_dim)
        return tsctl_fail("random-model", 2,
                          "--kv-heads must divide --heads, and --outliers is at most --head-dim");
    if (mkdir(arguments->items[0], 0777) != 0) {
        ts_error_set(&err, TS_EIO, "cannot make %s: %s", arguments->items[0], strerror(errno));
        return tsctl_fail("random-model", 1, err.text);
    }
    if (ts_random_model_write(&model, arguments->items[0], &err) == TS_OK)
        return 0;
    ts_random_model_remove(arguments->items[0]);
    return tsctl_fail("random-model", 1, err.text);
}

int tsctl_random_model(int argc, char **argv)
{
    struct model_flags f = {.conf = NULL};
    struct ts_conf_strings arguments;
    struct ts_error err = {0};
    int code = 0;
    switch (ts_conf_load("random-model", options, TS_ARRAY_SIZE(options), argc, argv, &f, &arguments, &f.conf,
                         &err)) {
    case TS_CONF_EXIT:
        break;
    case TS_CONF_ERROR:
        return tsctl_fail("random-model", 2, err.text);
    case TS_CONF_RUN:
        code = run(&f, &arguments);
    }
    ts_conf_destroy(&f.conf);
    return code;
}
