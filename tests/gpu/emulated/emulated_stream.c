/* Streams, events and graphs of the emulated driver. */
#include <stdlib.h>

#include "tests/gpu/emulated/emulated.h"

struct CUevent_st {
    ts_time at; /* 0 = never passed */
    struct emulated_point point;
};

struct CUgraph_st {
    struct kernel_record record;
};

struct CUgraphExec_st {
    struct kernel_record record;
};

CUresult emulated_submit(CUstream stream, const struct kernel_command *c)
{
    if (!stream)
        return CUDA_INVALID_HANDLE;
    if (emulated_capture != stream)
        (void)emulated_later(stream, c);
    else if (stream->invalid)
        return CUDA_CAPTURE_UNSUPPORTED + 1;
    else
        kernel_record_add(&stream->record, c);
    return 0;
}

/* --- streams -------------------------------------------------------------------------------------------- */

CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority)
{
    ENTER(EMULATED_CURRENT);
    if (flags != CUDA_STREAM_NON_BLOCKING || priority > 0 || priority < -5)
        return CUDA_INVALID_VALUE;
    *stream = calloc(1, sizeof **stream);
    emulated_add_stream(*stream);
    emulated_count(EMULATED_STREAM, 1);
    return 0;
}

CUresult cuStreamDestroy_v2(CUstream stream)
{
    CUresult result = emulated_enter(__func__, EMULATED_CURRENT);
    if (emulated_capture == stream)
        emulated_capture = NULL;
    emulated_remove_stream(stream);
    kernel_record_fini(&stream->record);
    free(stream);
    emulated_count(EMULATED_STREAM, -1);
    return result;
}

CUresult cuStreamSynchronize(CUstream stream)
{
    ENTER(EMULATED_CURRENT);
    if (emulated_capture != stream) {
        emulated_finish((struct emulated_point){stream->id, UINT64_MAX});
        return 0;
    }
    stream->invalid = true;
    return CUDA_CAPTURE_UNSUPPORTED;
}

/* --- events --------------------------------------------------------------------------------------------- */

CUresult cuEventCreate(CUevent *event, unsigned flags)
{
    ENTER(EMULATED_CURRENT);
    (void)flags;
    *event = calloc(1, sizeof **event);
    emulated_count(EMULATED_EVENT, 1);
    return 0;
}

CUresult cuEventDestroy_v2(CUevent event)
{
    CUresult result = emulated_enter(__func__, EMULATED_CURRENT);
    emulated_finish_all(); /* a record may still come */
    free(event);
    emulated_count(EMULATED_EVENT, -1);
    return result;
}

/* Events that are not for the graph alone are external, and external ones are for graphs. */
static bool fits(CUstream stream, unsigned flags)
{
    return (emulated_capture == stream) == (flags == CUDA_EXTERNAL);
}

CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned flags)
{
    ENTER(EMULATED_CURRENT);
    if (!fits(stream, flags))
        return CUDA_INVALID_VALUE;
    const struct kernel_command mark = {.kind = KERNEL_MARK, .to = &event->at};
    if (emulated_capture == stream)
        return emulated_submit(stream, &mark);
    event->point = emulated_later(stream, &mark);
    return 0;
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags)
{
    ENTER(EMULATED_CURRENT);
    if (!fits(stream, flags))
        return CUDA_INVALID_VALUE;
    if (emulated_capture == stream)
        emulated_finish(event->point); /* no graph of ours waits: what it waits for is done now */
    else
        emulated_after(stream, event->point);
    return 0;
}

CUresult cuEventSynchronize(CUevent event)
{
    ENTER(EMULATED_NOTHING);
    emulated_finish(event->point);
    return 0;
}

CUresult cuEventQuery(CUevent event)
{
    ENTER(EMULATED_NOTHING);
    return emulated_ask(event->point) ? 0 : CUDA_NOT_READY;
}

CUresult cuEventElapsedTime_v2(float *ms, CUevent from, CUevent to)
{
    ENTER(EMULATED_NOTHING);
    if (!emulated_ask(from->point) || !emulated_ask(to->point))
        return CUDA_NOT_READY;
    if (!from->at || !to->at)
        return CUDA_INVALID_HANDLE;
    *ms = (float)((double)(to->at - from->at) / 1e6);
    return 0;
}

/* --- graphs --------------------------------------------------------------------------------------------- */

CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode)
{
    ENTER(EMULATED_CURRENT);
    if (mode != CUDA_CAPTURE_THREAD_LOCAL || emulated_capture)
        return CUDA_INVALID_VALUE;
    stream->invalid = false;
    emulated_capture = stream;
    return 0;
}

/* The capture is over also when this fails. */
CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph)
{
    CUresult result = emulated_enter(__func__, EMULATED_CURRENT);
    if (emulated_capture != stream)
        return CUDA_INVALID_VALUE;
    emulated_capture = NULL;
    if (result == 0 && stream->invalid)
        result = CUDA_CAPTURE_UNSUPPORTED + 1;
    if (result != 0) {
        kernel_record_fini(&stream->record);
        return result;
    }
    *graph = calloc(1, sizeof **graph);
    (*graph)->record = stream->record;
    stream->record = (struct kernel_record){0};
    emulated_count(EMULATED_GRAPH, 1);
    return 0;
}

/* Once of each graph, which it empties. */
CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags)
{
    ENTER(EMULATED_CURRENT);
    if (flags != 0)
        return CUDA_INVALID_VALUE;
    *exec = calloc(1, sizeof **exec);
    (*exec)->record = graph->record;
    graph->record = (struct kernel_record){0};
    emulated_count(EMULATED_GRAPH, 1);
    return 0;
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream)
{
    ENTER(EMULATED_CURRENT);
    if (!stream || emulated_capture == stream)
        return CUDA_INVALID_VALUE;
    for (size_t i = 0; i < exec->record.count; i++) {
        const struct kernel_command *c = &exec->record.commands[i];
        struct emulated_point end = emulated_later(stream, c);
        if (c->kind == KERNEL_MARK) /* what is marked is the first member of its event */
            ((struct CUevent_st *)c->to)->point = end;
    }
    return 0;
}

CUresult cuGraphExecDestroy(CUgraphExec exec)
{
    CUresult result = emulated_enter(__func__, EMULATED_NOTHING);
    kernel_record_fini(&exec->record); /* what was launched has its own copy */
    free(exec);
    emulated_count(EMULATED_GRAPH, -1);
    return result;
}

CUresult cuGraphDestroy(CUgraph graph)
{
    CUresult result = emulated_enter(__func__, EMULATED_NOTHING);
    kernel_record_fini(&graph->record);
    free(graph);
    emulated_count(EMULATED_GRAPH, -1);
    return result;
}
