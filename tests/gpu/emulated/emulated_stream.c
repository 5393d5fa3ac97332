/* Streams, events and graphs of the emulated driver. */
#include <stdlib.h>

#include "tests/gpu/emulated/emulated.h"

struct CUevent_st {
    ts_time at; /* 0 = not recorded */
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
        kernel_command_run(c);
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
    emulated_count(EMULATED_STREAM, 1);
    return 0;
}

CUresult cuStreamDestroy_v2(CUstream stream)
{
    CUresult result = emulated_enter(__func__, EMULATED_CURRENT);
    if (emulated_capture == stream)
        emulated_capture = NULL;
    kernel_record_fini(&stream->record);
    free(stream);
    emulated_count(EMULATED_STREAM, -1);
    return result;
}

CUresult cuStreamSynchronize(CUstream stream)
{
    ENTER(EMULATED_CURRENT);
    if (emulated_capture != stream)
        return 0;
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
    return emulated_submit(stream, &(struct kernel_command){.kind = KERNEL_MARK, .to = &event->at});
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags)
{
    ENTER(EMULATED_CURRENT);
    (void)event;
    return fits(stream, flags) ? 0 : CUDA_INVALID_VALUE;
}

CUresult cuEventSynchronize(CUevent event)
{
    ENTER(EMULATED_NOTHING);
    (void)event;
    return 0;
}

CUresult cuEventQuery(CUevent event)
{
    ENTER(EMULATED_NOTHING);
    (void)event;
    return 0;
}

CUresult cuEventElapsedTime_v2(float *ms, CUevent from, CUevent to)
{
    ENTER(EMULATED_NOTHING);
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
    kernel_record_run(&exec->record);
    return 0;
}

CUresult cuGraphExecDestroy(CUgraphExec exec)
{
    CUresult result = emulated_enter(__func__, EMULATED_NOTHING);
    kernel_record_fini(&exec->record);
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
