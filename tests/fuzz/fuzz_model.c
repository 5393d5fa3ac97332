/*
 * A model folder of unknown origin: refused, or good for reading any of its tensors. The input is
 * config.json, generation_config.json, tokenizer_config.json and model.safetensors.index.json, each ended by
 * a NUL and left out when empty, then a file of weights: a.safetensors if there is an index.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/model/ts_hf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile float sink; /* so that the reads are made */

static void use(const struct ts_hf *hf)
{
    double inverse[256], factor;
    ts_rope_table(&hf->rope, hf->model.head_dim, inverse, &factor);
    for (size_t i = 0; i < hf->tensor_count; i++) {
        const struct ts_hf_tensor *t = &hf->tensors[i];
        uint64_t elements = ts_hf_tensor_bytes(t) / ts_dtype_bytes(t->dtype);
        if (elements > 0)
            sink = ts_hf_element(t, 0) + ts_hf_element(t, elements - 1);
    }
    if (hf->model.eos_count > TS_MODEL_EOS_MAX || hf->model.heads % hf->model.kv_heads != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"config.json", "generation_config.json", "tokenizer_config.json",
                                        "model.safetensors.index.json"};
    struct ts_hf_file files[5];
    size_t count = 0;
    const char *weights = "model.safetensors";
    for (size_t i = 0; i < 4; i++) {
        const uint8_t *end = size > 0 ? memchr(data, 0, size) : NULL;
        if (!end)
            return 0;
        if (end > data)
            files[count++] = (struct ts_hf_file){names[i], data, (size_t)(end - data)};
        if (end > data && i == 3)
            weights = "a.safetensors";
        size -= (size_t)(end - data) + 1;
        data = end + 1;
    }
    files[count++] = (struct ts_hf_file){weights, data, size};
    struct ts_hf *hf = NULL;
    struct ts_error err = {0};
    enum ts_status status = ts_hf_open_files("fuzz", files, count, &hf, &err);
    if (status == TS_OK)
        use(hf);
    else if (!err.text[0] || err.status != status)
        abort(); /* a refusal without words */
    ts_hf_close(&hf);
    return 0;
}
