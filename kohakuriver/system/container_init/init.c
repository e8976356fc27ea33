/* The first process of a container: runs its program once, copies what it writes, and puts down how it ended.

   init RECORD STDOUT STDERR LIMIT MARKER PROGRAM [ARGUMENT]...

   All of that happens inside the container, so that nothing of it is lost when the container engine, its daemons or
   whoever watches them die. RECORD, STDOUT and STDERR are files that were there before. RECORD is locked for as long as
   this process lives and gets one line for each thing that happens (times are unix seconds). Only if it was empty, or
   said that the program may run AGAIN, does anything happen:

       claimed TIME                              the program is about to be run, for the first and only time
       began TIME                                it runs; or
       failed ERRNO TIME                         it cannot be run
       exited CODE SIGNAL OOM_KILLS LOST TIME    it ended, and with it everything else in the container

   LOST is the errno with which the disk refused output for so long that it was given up. STDOUT and STDERR take LIMIT
   bytes each, with what they held before; where more came, MARKER follows. Signals go to the program; STAND_IN_FOR_KILL becomes SIGKILL, so that
   even then somebody is there who puts down the end. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ARG_RECORD = 1, ARG_STDOUT, ARG_STDERR, ARG_LIMIT, ARG_MARKER, ARG_PROGRAM };
enum { NOT_OURS_TO_RUN = 125, CANNOT_RUN = 126, NO_PROGRAM = 127, KILLED_BY_SIGNAL = 128 };
enum { STAND_IN_FOR_KILL = 64, BUFFER_BYTES = 64 * 1024, DISK_AGAIN_MS = 200, DISK_PATIENCE_TRIES = 150 };
enum { LAST_CHILD_SECONDS = 5, DETAILS_BYTES = 64 };

#define AGAIN "again\n"

/* One stream on its way from a pipe to a file; `waiting` bytes of the buffer, from `at` on, are not written yet. */
struct stream {
    int pipe, file;
    long long room_bytes;
    int is_over, refused;
    size_t at, waiting;
    char buffer[BUFFER_BYTES + 256];
};

static int record;
static const char *marker;
static struct stream streams[2];

/* Put a line into the record; whether that was possible. */
static int put_down(const char *event, const char *details)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return dprintf(record, "%s%s %lld.%09ld\n", event, details, (long long)now.tv_sec, now.tv_nsec) > 0;
}

static int opened(const char *path, int flags)
{
    int descriptor = open(path, flags | O_APPEND | O_CLOEXEC);
    if (descriptor < 0)
        _exit(NOT_OURS_TO_RUN);
    return descriptor;
}

/* Go on only as the first who ever ran this container's program. */
static void claim(const char *path)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char before[sizeof AGAIN];
    record = opened(path, O_RDWR);
    if (fcntl(record, F_SETLK, &whole))
        _exit(NOT_OURS_TO_RUN);
    ssize_t size = read(record, before, sizeof before);
    if (size != 0 && (size != sizeof AGAIN - 1 || memcmp(before, AGAIN, sizeof AGAIN - 1)))
        _exit(NOT_OURS_TO_RUN);
    if (!put_down("claimed", "") || fdatasync(record)) /* a machine that loses its power does not run it again either */
        _exit(NOT_OURS_TO_RUN);
}

/* Take what the pipe has; what is beyond the limit becomes one marker, and then nothing. */
static void take(struct stream *stream)
{
    ssize_t size = read(stream->pipe, stream->buffer, BUFFER_BYTES);
    if (size <= 0) {
        stream->is_over = size == 0 || (errno != EAGAIN && errno != EINTR);
        return;
    }
    if (size > stream->room_bytes) {
        size_t kept = stream->room_bytes > 0 ? (size_t)stream->room_bytes : 0;
        size_t extra = stream->room_bytes >= 0 ? strnlen(marker, sizeof stream->buffer - BUFFER_BYTES) : 0;
        memcpy(stream->buffer + kept, marker, extra);
        stream->room_bytes = -1;
        size = (ssize_t)(kept + extra);
    } else {
        stream->room_bytes -= size;
    }
    stream->at = 0;
    stream->waiting = (size_t)size;
}

/* Write what waits, as far as the disk takes it. */
static void flush(struct stream *stream)
{
    while (stream->waiting) {
        ssize_t size = write(stream->file, stream->buffer + stream->at, stream->waiting);
        if (size < 0 && errno == EINTR)
            continue;
        stream->refused = size < 0 ? errno : 0;
        if (size < 0)
            return;
        stream->at += (size_t)size;
        stream->waiting -= (size_t)size;
    }
}

/* Copy what is left in the pipe; the errno of a disk that does not take it. */
static int finish(struct stream *stream)
{
    int tries = 0;
    while (!stream->is_over) {
        flush(stream);
        if (stream->waiting) {
            if (++tries == DISK_PATIENCE_TRIES)
                return stream->refused;
            poll(NULL, 0, DISK_AGAIN_MS);
            continue;
        }
        take(stream);
        if (!stream->waiting)
            return 0; /* at its end, or held open by somebody outside who writes nothing */
    }
    return 0;
}

static pid_t run(char **program, const sigset_t *mask)
{
    int out[2], err[2], outcome[2], problem = 0;
    char details[DETAILS_BYTES];
    if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC) || pipe2(outcome, O_CLOEXEC))
        _exit(NOT_OURS_TO_RUN);
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        dup2(out[1], STDOUT_FILENO);
        dup2(err[1], STDERR_FILENO);
        sigprocmask(SIG_SETMASK, mask, NULL);
        execvp(program[0], program);
        problem = errno;
        write(outcome[1], &problem, sizeof problem);
        _exit(NO_PROGRAM);
    }
    problem = child < 0 ? errno : 0;
    close(out[1]), close(err[1]), close(outcome[1]);
    if (problem || read(outcome[0], &problem, sizeof problem) > 0) {
        snprintf(details, sizeof details, " %d", problem);
        put_down("failed", details);
        exit(problem == ENOENT ? NO_PROGRAM : CANNOT_RUN);
    }
    close(outcome[0]);
    put_down("began", "");
    streams[0].pipe = out[0], streams[1].pipe = err[0];
    return child;
}

/* Whether the program has ended, `status` then says how; whoever else ended is reaped. */
static int has_ended(pid_t child, int *status)
{
    int some_status, ended = 0;
    pid_t pid;
    while ((pid = waitpid(-1, &some_status, WNOHANG)) > 0)
        if (pid == child)
            *status = some_status, ended = 1;
    return ended;
}

/* Copy, reap and pass signals on until the program ends; its status. */
static int attend(pid_t child, int signals)
{
    struct signalfd_siginfo told;
    int status = 0;
    for (;;) {
        struct pollfd polled[3] = {{.fd = signals, .events = POLLIN}};
        int timeout = -1;
        for (int i = 0; i < 2; i++) {
            polled[i + 1].fd = streams[i].is_over || streams[i].waiting ? -1 : streams[i].pipe;
            polled[i + 1].events = POLLIN;
            if (streams[i].waiting)
                timeout = DISK_AGAIN_MS;
        }
        poll(polled, 3, timeout);
        while (read(signals, &told, sizeof told) == sizeof told)
            if (told.ssi_signo == STAND_IN_FOR_KILL)
                kill(child, SIGKILL);
            else if (told.ssi_signo != SIGCHLD)
                kill(child, (int)told.ssi_signo);
        if (has_ended(child, &status))
            return status;
        for (int i = 0; i < 2; i++) {
            if (polled[i + 1].revents)
                take(&streams[i]);
            flush(&streams[i]);
        }
    }
}

/* End everything that is left in the container. */
static void end_the_others(void)
{
    struct timespec patience = {.tv_sec = LAST_CHILD_SECONDS};
    sigset_t children;
    pid_t pid;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    kill(-1, SIGKILL);
    while ((pid = waitpid(-1, NULL, WNOHANG)) >= 0)
        if (pid == 0 && sigtimedwait(&children, NULL, &patience) < 0)
            break; /* we may not kill it: it ends with us */
}

/* How often the kernel killed something in here for want of memory, as the control group (v2, or v1) counts it. */
static int oom_kills(void)
{
    static const char *const places[] = {"/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"};
    char text[512], *found;
    for (int i = 0; i < 2; i++) {
        int file = open(places[i], O_RDONLY | O_CLOEXEC);
        ssize_t size = file < 0 ? -1 : read(file, text, sizeof text - 1);
        text[size > 0 ? size : 0] = 0;
        if ((found = strstr(text, "oom_kill ")))
            return atoi(found + strlen("oom_kill "));
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const int synchronous[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGABRT, SIGTRAP, SIGSYS};
    sigset_t all, before;
    if (argc <= ARG_PROGRAM || getpid() != 1) { /* as any other process it would end all of the machine's */
        puts("the first process of a container; made from " MADE_FROM);
        return NOT_OURS_TO_RUN;
    }
    claim(argv[ARG_RECORD]);
    marker = argv[ARG_MARKER];
    for (int i = 0; i < 2; i++) {
        streams[i].file = opened(argv[ARG_STDOUT + i], O_WRONLY);
        streams[i].room_bytes = atoll(argv[ARG_LIMIT]) - lseek(streams[i].file, 0, SEEK_END);
    }
    sigfillset(&all);
    for (size_t i = 0; i < sizeof synchronous / sizeof *synchronous; i++)
        sigdelset(&all, synchronous[i]);
    sigprocmask(SIG_SETMASK, &all, &before);
    int signals = signalfd(-1, &all, SFD_NONBLOCK | SFD_CLOEXEC);
    pid_t child = run(argv + ARG_PROGRAM, &before);
    for (int i = 0; i < 2; i++)
        fcntl(streams[i].pipe, F_SETFL, O_NONBLOCK);
    int status = attend(child, signals);
    end_the_others();
    int lost_out = finish(&streams[0]), lost_err = finish(&streams[1]);
    int number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    int code = number ? KILLED_BY_SIGNAL + number : WEXITSTATUS(status);
    char details[DETAILS_BYTES];
    snprintf(details, sizeof details, " %d %d %d %d", code, number, oom_kills(), lost_out ? lost_out : lost_err);
    put_down("exited", details);
    return code;
}
