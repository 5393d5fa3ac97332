/*
 * Inside of gpu/model: the files of a folder, mapped or lent by the caller, and the steps of ts_hf_open. Each
 * step fills a part of struct ts_hf and names the key, tensor or file it refuses; the caller puts the file's
 * path before the words.
 */
#ifndef TS_GPU_HF_IMPL_H
#define TS_GPU_HF_IMPL_H

#include "common/text/ts_json.h"
#include "gpu/model/ts_hf.h"

#define HF_CONTEXT_MAX (1 << 20)
#define HF_PATH_BYTES  4096

struct ts_hf_map {
    char *name; /* in the folder */
    const uint8_t *base;
    size_t bytes;
    bool mapped; /* by us: unmapped at close */
};

/* Where files come from: a directory, or memory of the caller. */
struct hf_folder {
    const char *name;
    const struct ts_hf_file *files; /* NULL: a directory */
    size_t file_count;
};

/* hf_folder.c. Opens a file of the folder; it stays open as the last of hf->maps. TS_ENOTFOUND without words
 * when there is none. */
enum ts_status hf_open_file(const struct hf_folder *folder, const char *file, struct ts_hf *hf,
                            struct ts_error *err);
/* The same, parsed; *out is NULL when there is no such file. */
enum ts_status hf_open_json(const struct hf_folder *folder, const char *file, struct ts_hf *hf,
                            struct ts_json **out, struct ts_error *err);

/* hf_keys.c. object[key] into *out; absent or null keeps what is there, or is an error with `required`. */
enum ts_status hf_read_u32(const struct ts_json *object, const char *key, uint32_t min, uint32_t max,
                           bool required, uint32_t *out, struct ts_error *err);
enum ts_status hf_read_number(const struct ts_json *object, const char *key, double min, double max,
                              bool required, double *out, struct ts_error *err);
enum ts_status hf_read_bool(const struct ts_json *object, const char *key, bool *out, struct ts_error *err);
enum ts_status hf_read_string(const struct ts_json *object, const char *key, const char **out,
                              struct ts_error *err);
/* Refuses keys that neither this loader reads nor are known to leave the computation alone. */
enum ts_status hf_check_config_keys(const struct ts_json *config, struct ts_error *err);
enum ts_status hf_check_rope_keys(const struct ts_json *scaling, struct ts_error *err);

/* hf_config.c, hf_rope.c, hf_generation.c */
enum ts_status hf_read_config(const struct ts_json *config, struct ts_hf *hf, struct ts_error *err);
enum ts_status hf_read_rope(const struct ts_json *config, struct ts_hf *hf, struct ts_error *err);
enum ts_status hf_read_eos(const struct ts_json *object, struct ts_model *model, struct ts_error *err);
enum ts_status hf_read_generation(const struct ts_json *generation, struct ts_hf *hf, struct ts_error *err);
enum ts_status hf_read_tokenizer_config(const struct ts_json *tokenizer, struct ts_hf *hf,
                                        struct ts_error *err);

/* hf_safetensors.c: adds the tensors of the last of hf->maps. */
enum ts_status hf_read_safetensors(struct ts_hf *hf, struct ts_error *err);
/* hf_weights.c: all files of weights, then exactly the tensors that the configuration asks for. */
enum ts_status hf_read_weights(const struct hf_folder *folder, struct ts_hf *hf, struct ts_error *err);

#endif
