/*
 * `tsctl cost request`: what one request takes and costs on each device of the catalogue, how batches change
 * that, and how long its KV is on each link. A device that cannot hold the model alone is taken as many times
 * as needed (TP over its peer link).
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "common/core/ts_cost.h"
#include "common/core/ts_plan.h"
#include "services/tsctl/tsctl.h"
#include "services/tsctl/tsctl_cost.h"

static const uint32_t batches[] = {1, 2, 4, 8, 16, 32, 64, 128, 256};
#define BATCHES (sizeof batches / sizeof batches[0])

struct times { /* of `tp` devices of one type */
    uint32_t tp;
    double price_per_hour, kv_bytes; /* of all; KV bytes that fit */
    double prefill_s[BATCHES], step_s[BATCHES];
};

/* The smallest degree at which the weights of all layers fit, 0 = none up to TS_TP_MAX. */
static uint32_t least_tp(const struct ts_device_type *device, const struct ts_model *model)
{
    double bytes = ts_cost_stage_weight_bytes(model, true, true, model->layers);
    for (uint32_t tp = 1; tp <= TS_TP_MAX; tp *= 2) {
        if (model->heads % tp == 0 && bytes / tp < ts_cost_usable_bytes(device) &&
            (tp == 1 || device->peer.bytes_per_s > 0))
            return tp;
    }
    return 0;
}

static double pass_s(const struct ts_device_type *device, const struct ts_model *model, uint32_t tp,
                     double layer_s, double rows)
{
    return model->layers * layer_s + ts_cost_head_s(device, model, tp, rows) + ts_cost_step_s(device);
}

static struct times times_of(const struct cost_flags *f, const struct ts_device_type *device,
                             const struct ts_model *model)
{
    struct times t = {.tp = least_tp(device, model)};
    const struct ts_link *link = &device->peer;
    double prompt = f->prompt_tokens, context = prompt + f->output_tokens / 2.0;
    if (t.tp == 0)
        return t;
    t.price_per_hour = t.tp * device->price_per_hour;
    t.kv_bytes =
        t.tp * ts_cost_usable_bytes(device) - ts_cost_stage_weight_bytes(model, true, true, model->layers);
    for (size_t i = 0; i < BATCHES; i++) {
        double n = batches[i];
        t.prefill_s[i] =
            pass_s(device, model, t.tp,
                   ts_cost_layer_prefill_s(device, model, link, t.tp, n * prompt, n * prompt * prompt), n);
        t.step_s[i] =
            pass_s(device, model, t.tp, ts_cost_layer_decode_s(device, model, link, t.tp, n, n * context), n);
    }
    return t;
}

static void put_text(struct ts_json *doc, const char *key, const char *text)
{
    ts_json_put_string(doc, key, text, strlen(text));
}

static struct ts_json *device_json(const struct cost_flags *f, const struct ts_device_type *device,
                                   const struct times *t)
{
    struct ts_json *doc = ts_json_new_object(), *list = ts_json_new_array();
    double per_s = t->price_per_hour / 3600, steps = f->output_tokens > 1 ? f->output_tokens - 1.0 : 0;
    put_text(doc, "device", device->name);
    ts_json_put_integer(doc, "tp", t->tp);
    ts_json_put_number(doc, "price_per_hour", t->price_per_hour);
    ts_json_put_number(doc, "kv_bytes", t->kv_bytes);
    for (size_t i = 0; i < BATCHES; i++) {
        struct ts_json *item = ts_json_new_object();
        double n = batches[i], held = n * (f->prompt_tokens + (double)f->output_tokens);
        ts_json_put_integer(item, "batch", batches[i]);
        ts_json_put_number(item, "prefill_s", t->prefill_s[i]);
        ts_json_put_number(item, "prefill_tokens_per_s", n * f->prompt_tokens / t->prefill_s[i]);
        ts_json_put_number(item, "prefill_dollars", per_s * t->prefill_s[i] / n);
        ts_json_put_number(item, "step_s", t->step_s[i]);
        ts_json_put_number(item, "decode_tokens_per_s", n / t->step_s[i]);
        ts_json_put_number(item, "decode_dollars", per_s * t->step_s[i] * steps / n);
        ts_json_put_bool(item, "fits", held * f->kv_token_bytes <= t->kv_bytes);
        ts_json_put(list, NULL, &item);
    }
    ts_json_put(doc, "batches", &list);
    return doc;
}

static enum ts_status put_links(const struct cost_flags *f, const struct ts_catalogue *catalogue,
                                const struct ts_model *model, const struct times *reference,
                                struct ts_json *doc, struct ts_error *err)
{
    struct ts_json *links = ts_json_new_array();
    for (size_t i = 0; i < f->links.count; i++) {
        const struct ts_link *link = ts_catalogue_link(catalogue, f->links.items[i]);
        if (!link) {
            ts_json_destroy(&links);
            return ts_error_set(err, TS_ENOTFOUND, "link \"%s\" is in no file of %s/links", f->links.items[i],
                                f->conf_dir);
        }
        for (int codec = 0; codec < TS_COST_CODEC_COUNT; codec++) {
            struct ts_json *item = ts_json_new_object();
            double bytes = f->kv_token_bytes * f->prompt_tokens *
                           ts_cost_codec_ratio((enum ts_cost_codec)codec, f->prompt_tokens);
            put_text(item, "link", link->name);
            ts_json_put_number(item, "gbit_per_s", 8e-9 * link->bytes_per_s);
            put_text(item, "codec", ts_cost_codec_name((enum ts_cost_codec)codec));
            ts_json_put_number(item, "bytes", bytes);
            ts_json_put_number(item, "transfer_s", ts_cost_send_s(link, bytes));
            ts_json_put_number(item, "visible_s",
                               ts_cost_kv_visible_s(link, model, bytes, reference->prefill_s[0]));
            ts_json_put(links, NULL, &item);
        }
    }
    ts_json_put(doc, "links", &links);
    return TS_OK;
}

static void print_table(const struct cost_flags *f, const struct ts_catalogue *catalogue,
                        const struct ts_model *model)
{
    double steps = f->output_tokens > 1 ? f->output_tokens - 1.0 : 0;
    printf("%-14s %2s %10s %12s %12s %14s %14s\n", "device", "TP", "$/h", "prefill ms", "step ms",
           "prefill u$", "decode u$");
    for (size_t i = 0; i < ts_catalogue_device_count(catalogue); i++) {
        const struct ts_device_type *device = ts_catalogue_device_at(catalogue, i);
        struct times t = times_of(f, device, model);
        if (t.tp == 0)
            printf("%-14s  does not hold the model, also %d of them\n", device->name, TS_TP_MAX);
        else
            printf("%-14s %2u %10.3f %12.2f %12.2f %14.2f %14.2f\n", device->name, t.tp, t.price_per_hour,
                   1e3 * t.prefill_s[0], 1e3 * t.step_s[0], 1e6 * t.price_per_hour / 3600 * t.prefill_s[0],
                   1e6 * t.price_per_hour / 3600 * t.step_s[0] * steps);
    }
}

static enum ts_status print_json(const struct cost_flags *f, const struct ts_catalogue *catalogue,
                                 const struct ts_model *model, struct ts_error *err)
{
    struct ts_json *doc = ts_json_new_object(), *devices = ts_json_new_array();
    const struct ts_device_type *reference = ts_catalogue_device(catalogue, f->reference);
    enum ts_status status = TS_OK;
    for (size_t i = 0; i < ts_catalogue_device_count(catalogue); i++) {
        const struct ts_device_type *device = ts_catalogue_device_at(catalogue, i);
        struct times t = times_of(f, device, model);
        struct ts_json *item = t.tp ? device_json(f, device, &t) : NULL;
        if (item)
            ts_json_put(devices, NULL, &item);
    }
    put_text(doc, "model", model->name);
    ts_json_put_integer(doc, "prompt_tokens", f->prompt_tokens);
    ts_json_put_integer(doc, "output_tokens", f->output_tokens);
    ts_json_put_number(doc, "kv_bytes", f->kv_token_bytes * f->prompt_tokens);
    ts_json_put(doc, "devices", &devices);
    if (!reference) {
        status =
            ts_error_set(err, TS_ENOTFOUND, "reference device \"%s\" is not in the catalogue", f->reference);
    } else {
        struct times t = times_of(f, reference, model);
        status = put_links(f, catalogue, model, &t, doc, err);
    }
    if (status == TS_OK) {
        char *text = ts_json_dump(doc, true);
        puts(text);
        ts_free(text);
    }
    ts_json_destroy(&doc);
    return status;
}

int cost_request(struct cost_flags *f)
{
    struct ts_catalogue *catalogue = NULL;
    struct ts_model model;
    struct ts_error err = {0};
    enum ts_status status = ts_catalogue_load(f->conf_dir, f->devices, &catalogue, &err);
    if (status == TS_OK)
        status = ts_inputs_model(f->conf_dir, f->model, &model, &err);
    if (status == TS_OK) {
        f->kv_token_bytes = (double)ts_model_kv_token_bytes(&model);
        if (f->json)
            status = print_json(f, catalogue, &model, &err);
        else
            print_table(f, catalogue, &model);
    }
    ts_catalogue_destroy(&catalogue);
    return status == TS_OK ? 0 : tsctl_fail("cost request", 1, err.text);
}
