#include "common/run/ts_jobs.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

struct job_list {
    struct ts_job *head, **tail;
};

struct ts_jobs {
    pthread_mutex_t lock;
    pthread_cond_t work, idle;
    struct job_list todo, done;
    size_t open; /* submitted and not finished */
    bool stop;
    int fd;
    int thread_count;
    pthread_t threads[];
};

static void list_init(struct job_list *list)
{
    list->head = NULL;
    list->tail = &list->head;
}

static void list_push(struct job_list *list, struct ts_job *job)
{
    job->next = NULL;
    *list->tail = job;
    list->tail = &job->next;
}

static struct ts_job *list_pop(struct job_list *list)
{
    struct ts_job *job = list->head;
    if (job && !(list->head = job->next))
        list->tail = &list->head;
    return job;
}

static void notify(int fd)
{
    uint64_t one = 1;
    ssize_t n = write(fd, &one, sizeof one);
    TS_ASSERT(n == (ssize_t)sizeof one);
}

static void *work(void *arg)
{
    struct ts_jobs *jobs = arg;
    pthread_mutex_lock(&jobs->lock);
    for (;;) {
        struct ts_job *job = list_pop(&jobs->todo);
        if (job) {
            pthread_mutex_unlock(&jobs->lock);
            job->run(job);
            pthread_mutex_lock(&jobs->lock);
            list_push(&jobs->done, job);
            if (--jobs->open == 0)
                pthread_cond_broadcast(&jobs->idle);
            notify(jobs->fd);
        } else if (jobs->stop) {
            break;
        } else {
            pthread_cond_wait(&jobs->work, &jobs->lock);
        }
    }
    pthread_mutex_unlock(&jobs->lock);
    return NULL;
}

struct ts_jobs *ts_jobs_new(int threads)
{
    struct ts_jobs *jobs = ts_xcalloc(1, sizeof *jobs + (size_t)threads * sizeof(pthread_t));
    pthread_mutex_init(&jobs->lock, NULL);
    pthread_cond_init(&jobs->work, NULL);
    pthread_cond_init(&jobs->idle, NULL);
    list_init(&jobs->todo);
    list_init(&jobs->done);
    jobs->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    TS_ASSERT(jobs->fd >= 0);
    jobs->thread_count = threads;
    for (int i = 0; i < threads; i++) {
        int rc = pthread_create(&jobs->threads[i], NULL, work, jobs);
        TS_ASSERT(rc == 0);
    }
    return jobs;
}

void ts_jobs_destroy(struct ts_jobs **jobs)
{
    struct ts_jobs *j = *jobs;
    if (!j)
        return;
    pthread_mutex_lock(&j->lock);
    j->stop = true;
    pthread_cond_broadcast(&j->work);
    pthread_mutex_unlock(&j->lock);
    for (int i = 0; i < j->thread_count; i++)
        pthread_join(j->threads[i], NULL);
    TS_ASSERT(!j->todo.head && !j->done.head);
    close(j->fd);
    pthread_cond_destroy(&j->work);
    pthread_cond_destroy(&j->idle);
    pthread_mutex_destroy(&j->lock);
    ts_free(j);
    *jobs = NULL;
}

void ts_jobs_submit(struct ts_jobs *jobs, struct ts_job *job)
{
    pthread_mutex_lock(&jobs->lock);
    list_push(&jobs->todo, job);
    jobs->open++;
    pthread_cond_signal(&jobs->work);
    pthread_mutex_unlock(&jobs->lock);
}

struct ts_job *ts_jobs_take(struct ts_jobs *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    struct ts_job *job = list_pop(&jobs->done);
    if (!jobs->done.head) {
        uint64_t value;
        ssize_t n = read(jobs->fd, &value, sizeof value); /* EAGAIN when it was reset before */
        (void)n;
    }
    pthread_mutex_unlock(&jobs->lock);
    return job;
}

int ts_jobs_fd(const struct ts_jobs *jobs)
{
    return jobs->fd;
}

void ts_jobs_settle(struct ts_jobs *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    while (jobs->open)
        pthread_cond_wait(&jobs->idle, &jobs->lock);
    pthread_mutex_unlock(&jobs->lock);
}
