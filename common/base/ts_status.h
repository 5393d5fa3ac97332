/*
 * The one result type of fallible calls. Zero is success. A status says what kind of thing went wrong, so
 * that a caller can act on it; the words for a person go into struct ts_error (ts_error.h).
 */
#ifndef TS_BASE_STATUS_H
#define TS_BASE_STATUS_H

#define TS_PRINTF(f, a) __attribute__((format(printf, f, a)))

enum ts_status {
    TS_OK = 0,
    TS_EINVAL,       /* an input is malformed or out of range */
    TS_ENOTFOUND,    /* a file, key or id does not exist */
    TS_EIO,          /* the operating system or a library refused */
    TS_ENOMEM,       /* device or bounded memory exhausted: ordinary, retry later */
    TS_EAGAIN,       /* nothing to do now, ask again */
    TS_EUNSUPPORTED, /* well-formed, but this build or version cannot do it */
    TS_ECORRUPT,     /* a checksum or digest does not match */
    TS_ETIMEOUT,     /* a deadline passed */
    TS_ECLOSED,      /* the peer or the object is gone */
    TS_ELIMIT,       /* a configured bound was reached */
    TS_STATUS_COUNT
};

const char *ts_status_name(enum ts_status status);

#endif
