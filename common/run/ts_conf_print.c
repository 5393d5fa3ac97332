#include "common/run/ts_conf_print.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The shortest text that reads back as the same number, with a point: libconfig tells 1.0 from 1. */
static void write_double(FILE *to, double value)
{
    char text[64];
    int digits = 1;
    do
        snprintf(text, sizeof text, "%.*g", digits, value);
    while (strtod(text, NULL) != value && digits++ < 17);
    char *exponent = strchr(text, 'e');
    int mantissa = exponent ? (int)(exponent - text) : (int)strlen(text);
    fprintf(to, "%.*s%s%s", mantissa, text, memchr(text, '.', (size_t)mantissa) ? "" : ".0",
            exponent ? exponent : "");
}

static void write_plain(FILE *to, const struct ts_option *o, const void *at)
{
    const struct ts_conf_strings *list = at;
    switch (o->type) {
    case TS_OPTION_STRING:
    case TS_OPTION_CHOICE:
        fputs(*(const char *const *)at, to);
        break;
    case TS_OPTION_STRINGS:
        for (size_t i = 0; i < list->count; i++)
            fprintf(to, "%s%s", i ? "," : "", list->items[i]);
        break;
    case TS_OPTION_U32:
        fprintf(to, "%u", *(const uint32_t *)at);
        break;
    case TS_OPTION_U64:
        fprintf(to, "%llu", (unsigned long long)*(const uint64_t *)at);
        break;
    case TS_OPTION_F64:
        write_double(to, *(const double *)at);
        break;
    case TS_OPTION_BOOL:
        fputs(*(const bool *)at ? "true" : "false", to);
        break;
    }
}

char *ts_conf_flags(const struct ts_option *options, size_t option_count, const void *from, size_t *bytes)
{
    char *text = NULL;
    FILE *to = open_memstream(&text, bytes);
    for (size_t i = 0; i < option_count; i++) {
        fprintf(to, "--%s=", options[i].name);
        write_plain(to, &options[i], (const char *)from + options[i].offset);
        fputc('\0', to);
    }
    fclose(to);
    return text;
}

static void print_quoted(const char *text)
{
    putchar('"');
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == '"' || *p == '\\')
            printf("\\%c", *p);
        else if (*p < ' ' || *p == 127)
            printf("\\x%02x", *p);
        else
            putchar(*p);
    }
    putchar('"');
}

static void print_value(const struct ts_option *o, const void *at)
{
    const struct ts_conf_strings *list = at;
    if (o->type == TS_OPTION_STRING || o->type == TS_OPTION_CHOICE) {
        print_quoted(*(const char *const *)at);
    } else if (o->type == TS_OPTION_STRINGS) {
        printf("[");
        for (size_t i = 0; i < list->count; i++) {
            printf(i ? ", " : "");
            print_quoted(list->items[i]);
        }
        printf("]");
    } else {
        write_plain(stdout, o, at);
        if ((o->type == TS_OPTION_U64 && *(const uint64_t *)at > INT32_MAX) ||
            (o->type == TS_OPTION_U32 && *(const uint32_t *)at > INT32_MAX))
            printf("L");
    }
}

/* Such a setting has no value that could be written down. */
static bool is_unset(const struct ts_option *o, const char *origin)
{
    return !o->fallback &&
           (o->type == TS_OPTION_U32 || o->type == TS_OPTION_U64 || o->type == TS_OPTION_F64) &&
           strcmp(origin, "default") == 0;
}

void ts_conf_print(const char *service, const struct ts_option *options, size_t option_count,
                   const void *from, const char *const *origins)
{
    printf("%s = {\n", service);
    for (size_t i = 0; i < option_count; i++) {
        if (is_unset(&options[i], origins[i])) {
            printf("    # %s is unset\n", options[i].name);
            continue;
        }
        printf("    %s = ", options[i].name);
        print_value(&options[i], (const char *)from + options[i].offset);
        printf("; # %s\n", origins[i]);
    }
    printf("};\n");
}

void ts_conf_print_help(const char *program, const struct ts_option *options, size_t option_count)
{
    printf("usage: %s [--config FILE] [--check-conf] [--print-conf] [--NAME VALUE ...]\n\n", program);
    for (size_t i = 0; i < option_count; i++) {
        const struct ts_option *o = &options[i];
        char flag[128];
        snprintf(flag, sizeof flag, "--%s", o->name);
        for (char *p = flag; *p; p++)
            *p = *p == '_' ? '-' : *p;
        printf("  %-28s %s%s%s%s\n", flag, o->help, o->fallback ? " [" : "", o->fallback ? o->fallback : "",
               o->fallback ? "]" : "");
    }
}
