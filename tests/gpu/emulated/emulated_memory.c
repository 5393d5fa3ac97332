/*
 * Memory of the emulated driver: each piece is a file in memory, so that another process can map it as
 * /proc/PID/fd/N, which its handle names. Behind a piece no page is mapped, and the address sanitizer knows
 * where in the last page it ends.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/gpu/emulated/emulated.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#if defined(WITH_ASAN)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes)   ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

#define PAGE           ((size_t)4096)
#define UNWRITTEN      0xff              /* not a number, in all types */
#define UNWRITTEN_MOST ((size_t)1 << 20) /* so far memory begins with that */
#define MAGIC          0x435049434d455354ULL

struct handle {
    uint64_t magic, bytes, inode;
    int32_t pid, file;
};

struct piece {
    enum emulated_kind kind; /* MEMORY, HOST or IMPORT */
    uint8_t *at;
    size_t bytes, mapped;
    int file;
    struct handle from; /* of an import */
    uint32_t references;
    struct piece *next;
};

static struct piece *pieces;
static uint64_t taken;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

_Static_assert(sizeof(struct handle) <= sizeof(CUipcMemHandle), "a handle has room for ours");

uint64_t emulated_memory_bytes(void)
{
    return emulated_number("TS_EMULATED_MEMORY", 4096) << 20;
}

/* --- pieces --------------------------------------------------------------------------------------------- */

/* The one that holds the address, of a kind or, with -1, of any. */
static struct piece **find(const void *address, int kind)
{
    struct piece **p = &pieces;
    const uint8_t *at = address;
    while (*p && !(at >= (*p)->at && at < (*p)->at + (*p)->bytes && (kind < 0 || kind == (int)(*p)->kind)))
        p = &(*p)->next;
    return p;
}

bool emulated_inside(CUdeviceptr address, size_t bytes)
{
    pthread_mutex_lock(&lock);
    const uint8_t *at = (const uint8_t *)(uintptr_t)address;
    const struct piece *p = *find(at, -1);
    bool inside = p && bytes <= p->bytes - (size_t)(at - p->at);
    pthread_mutex_unlock(&lock);
    return inside;
}

/* Maps the file, and a page behind it that nobody may touch. NULL if that fails. */
static struct piece *map(enum emulated_kind kind, int file, size_t bytes)
{
    size_t mapped = (bytes + PAGE - 1) / PAGE * PAGE;
    uint8_t *at = mmap(NULL, mapped + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    if (mmap(at, mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED) {
        munmap(at, mapped + PAGE);
        return NULL;
    }
    ASAN_POISON_MEMORY_REGION(at + bytes, mapped - bytes);
    struct piece *p = calloc(1, sizeof *p);
    *p = (struct piece){
        .kind = kind, .at = at, .bytes = bytes, .mapped = mapped, .file = file, .references = 1};
    p->next = pieces;
    pieces = p;
    emulated_count(kind, 1);
    return p;
}

static void drop(struct piece **at)
{
    struct piece *p = *at;
    *at = p->next;
    ASAN_UNPOISON_MEMORY_REGION(p->at, p->mapped);
    munmap(p->at, p->mapped + PAGE);
    close(p->file);
    emulated_count(p->kind, -1);
    free(p);
}

static struct piece *make(enum emulated_kind kind, size_t bytes)
{
    int file = memfd_create("emulated", MFD_CLOEXEC);
    struct piece *p = file >= 0 && ftruncate(file, (off_t)bytes) == 0 ? map(kind, file, bytes) : NULL;
    if (!p && file >= 0)
        close(file);
    if (p)
        memset(p->at, UNWRITTEN, bytes < UNWRITTEN_MOST ? bytes : UNWRITTEN_MOST);
    return p;
}

/* --- allocations ---------------------------------------------------------------------------------------- */

CUresult cuMemGetInfo_v2(size_t *unused, size_t *total)
{
    ENTER(EMULATED_CURRENT);
    pthread_mutex_lock(&lock);
    *total = emulated_memory_bytes();
    *unused = *total > taken ? *total - taken : 0;
    pthread_mutex_unlock(&lock);
    return 0;
}

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes)
{
    ENTER(EMULATED_CURRENT | EMULATED_UNCAPTURED);
    if (bytes == 0)
        return CUDA_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    uint64_t all = emulated_memory_bytes();
    struct piece *p = taken < all && bytes <= all - taken ? make(EMULATED_MEMORY, bytes) : NULL;
    if (p) {
        taken += p->mapped;
        *address = (CUdeviceptr)(uintptr_t)p->at;
    }
    pthread_mutex_unlock(&lock);
    return p ? 0 : CUDA_OUT_OF_MEMORY;
}

/* Gives back the piece of that kind that begins there. */
static CUresult give_back(const void *address, enum emulated_kind kind)
{
    emulated_finish_all(); /* commands may still need it */
    pthread_mutex_lock(&lock);
    struct piece **at = find(address, (int)kind);
    bool found = *at && (*at)->at == address;
    if (found && --(*at)->references == 0) {
        taken -= kind == EMULATED_MEMORY ? (*at)->mapped : 0;
        drop(at);
    }
    pthread_mutex_unlock(&lock);
    return found ? 0 : CUDA_INVALID_VALUE;
}

CUresult cuMemFree_v2(CUdeviceptr address)
{
    CUresult result = emulated_enter(__func__, EMULATED_CURRENT | EMULATED_UNCAPTURED);
    CUresult given = give_back((const void *)(uintptr_t)address, EMULATED_MEMORY);
    return result ? result : given;
}

CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr address)
{
    ENTER(EMULATED_CURRENT);
    pthread_mutex_lock(&lock);
    const struct piece *p = *find((const void *)(uintptr_t)address, EMULATED_MEMORY);
    if (p) {
        *base = (CUdeviceptr)(uintptr_t)p->at;
        *bytes = p->bytes;
    }
    pthread_mutex_unlock(&lock);
    return p ? 0 : CUDA_NOT_FOUND;
}

CUresult cuMemHostAlloc(void **memory, size_t bytes, unsigned flags)
{
    ENTER(EMULATED_CURRENT | EMULATED_UNCAPTURED);
    if (bytes == 0 || flags != CUDA_HOST_PORTABLE)
        return CUDA_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    struct piece *p = make(EMULATED_HOST, bytes);
    if (p)
        *memory = p->at;
    pthread_mutex_unlock(&lock);
    return p ? 0 : CUDA_OUT_OF_MEMORY;
}

CUresult cuMemFreeHost(void *memory)
{
    CUresult result = emulated_enter(__func__, EMULATED_CURRENT | EMULATED_UNCAPTURED);
    CUresult given = give_back(memory, EMULATED_HOST);
    return result ? result : given;
}

/* --- copies --------------------------------------------------------------------------------------------- */

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char byte, size_t bytes, CUstream stream)
{
    ENTER(EMULATED_CURRENT);
    if (!emulated_inside(to, bytes))
        return CUDA_INVALID_VALUE;
    return emulated_submit(
        stream, &(struct kernel_command){
                    .kind = KERNEL_FILL, .to = (void *)(uintptr_t)to, .bytes = bytes, .byte = byte});
}

static CUresult move(void *to, const void *from, size_t bytes, CUstream stream)
{
    return emulated_submit(
        stream, &(struct kernel_command){.kind = KERNEL_MOVE, .to = to, .from = from, .bytes = bytes});
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream)
{
    ENTER(EMULATED_CURRENT);
    return emulated_inside(to, bytes) ? move((void *)(uintptr_t)to, from, bytes, stream) : CUDA_INVALID_VALUE;
}

CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    ENTER(EMULATED_CURRENT);
    return emulated_inside(from, bytes) ? move(to, (const void *)(uintptr_t)from, bytes, stream)
                                        : CUDA_INVALID_VALUE;
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    ENTER(EMULATED_CURRENT);
    return emulated_inside(to, bytes) && emulated_inside(from, bytes)
               ? move((void *)(uintptr_t)to, (const void *)(uintptr_t)from, bytes, stream)
               : CUDA_INVALID_VALUE;
}

/* --- memory of other processes -------------------------------------------------------------------------- */

CUresult cuIpcGetMemHandle(CUipcMemHandle *handle, CUdeviceptr address)
{
    ENTER(EMULATED_CURRENT);
    struct stat file;
    pthread_mutex_lock(&lock);
    const struct piece *p = *find((const void *)(uintptr_t)address, EMULATED_MEMORY);
    bool found = p && fstat(p->file, &file) == 0;
    if (found) {
        struct handle ours = {MAGIC, p->bytes, file.st_ino, getpid(), p->file};
        memset(handle, 0, sizeof *handle);
        memcpy(handle, &ours, sizeof ours);
    }
    pthread_mutex_unlock(&lock);
    return found ? 0 : CUDA_INVALID_VALUE;
}

/* The file that a handle names, if it is still the same, or -1. */
static int open_file(const struct handle *h)
{
    char path[64];
    struct stat found;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)h->pid, (int)h->file);
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file >= 0 && (fstat(file, &found) != 0 || found.st_ino != h->inode)) {
        close(file);
        return -1;
    }
    return file;
}

static struct piece *import(const struct handle *h)
{
    for (struct piece *p = pieces; p; p = p->next) {
        if (p->kind == EMULATED_IMPORT && memcmp(&p->from, h, sizeof *h) == 0) {
            p->references++;
            return p;
        }
    }
    int file = open_file(h);
    struct piece *p = file >= 0 ? map(EMULATED_IMPORT, file, h->bytes) : NULL;
    if (!p && file >= 0)
        close(file);
    if (p)
        p->from = *h;
    return p;
}

CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *address, CUipcMemHandle handle, unsigned flags)
{
    struct handle ours;
    ENTER(EMULATED_CURRENT | EMULATED_UNCAPTURED);
    memcpy(&ours, &handle, sizeof ours);
    if (ours.magic != MAGIC || flags != CUDA_IPC_LAZY_PEER_ACCESS)
        return CUDA_INVALID_VALUE;
    if (ours.pid == getpid())
        return CUDA_INVALID_CONTEXT;
    pthread_mutex_lock(&lock);
    const struct piece *p = import(&ours);
    if (p)
        *address = (CUdeviceptr)(uintptr_t)p->at;
    pthread_mutex_unlock(&lock);
    return p ? 0 : CUDA_INVALID_VALUE;
}

CUresult cuIpcCloseMemHandle(CUdeviceptr address)
{
    CUresult result = emulated_enter(__func__, EMULATED_CURRENT | EMULATED_UNCAPTURED);
    CUresult given = give_back((const void *)(uintptr_t)address, EMULATED_IMPORT);
    return result ? result : given;
}
