/* The workloads of the probe's benchmark: a small static program, so that what
 * is timed is the kernel and not a run-time library. It prints what it did and
 * what that took:
 *
 *	pid=P wall_ns=W user_us=U system_us=S NAME=COUNT...
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
	fprintf(stderr, "work: %s: %s\n", what, strerror(errno));
	exit(1);
}

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void until(long long when)
{
	struct timespec t = { when / 1000000000LL, when % 1000000000LL };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0) == EINTR)
		;
}

static long long us(struct timeval t)
{
	return t.tv_sec * 1000000LL + t.tv_usec;
}

/* Between begin and end lies what counts. */
static long long began;
static struct rusage self0, children0;

static void begin(void)
{
	getrusage(RUSAGE_SELF, &self0);
	getrusage(RUSAGE_CHILDREN, &children0);
	began = now();
}

static void end(void)
{
	long long wall = now() - began;
	struct rusage self, children;

	getrusage(RUSAGE_SELF, &self);
	getrusage(RUSAGE_CHILDREN, &children);
	printf("pid=%d wall_ns=%lld user_us=%lld system_us=%lld", getpid(), wall,
	       us(self.ru_utime) - us(self0.ru_utime) + us(children.ru_utime) - us(children0.ru_utime),
	       us(self.ru_stime) - us(self0.ru_stime) + us(children.ru_stime) - us(children0.ru_stime));
}

static void told(const char *name, long long n)
{
	printf(" %s=%lld", name, n);
}

static void await(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid || status != 0)
		die("child");
}

static void start(void)
{
	char *argv[] = { "work", "nop", 0 }, *none[] = { 0 };
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid == 0) {
		execve("/proc/self/exe", argv, none);
		_exit(1);
	}
	await(pid);
}

static void do_exec(long n)
{
	begin();
	for (long i = 0; i < n; i++)
		start();
	end();
	told("fork", n);
	told("exec", n);
	told("exit", n);
}

static void do_connect(long n)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct linger reset = { 1, 0 }; /* no TIME_WAIT: ports would run out */
	socklen_t len = sizeof(a);
	int l = socket(AF_INET, SOCK_STREAM, 0);

	if (l < 0 || bind(l, (void *)&a, sizeof(a)) || listen(l, 16) || getsockname(l, (void *)&a, &len))
		die("listen");
	begin();
	for (long i = 0; i < n; i++) {
		int c = socket(AF_INET, SOCK_STREAM, 0), s;

		if (c < 0 || connect(c, (void *)&a, sizeof(a)))
			die("connect");
		s = accept(l, 0, 0);
		if (s < 0 || setsockopt(c, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)))
			die("accept");
		close(c);
		close(s);
	}
	end();
	told("connect", n);
	told("accept", n);
}

static void do_udp(long n)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int r = socket(AF_INET, SOCK_DGRAM, 0), s = socket(AF_INET, SOCK_DGRAM, 0);

	if (r < 0 || s < 0 || bind(r, (void *)&a, sizeof(a)) || getsockname(r, (void *)&a, &len))
		die("bind");
	begin();
	for (long i = 0; i < n; i++)
		if (sendto(s, "x", 1, 0, (void *)&a, sizeof(a)) != 1)
			die("sendto");
	end();
	told("send", n);
}

static int fresh(const char *name)
{
	int fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0600);

	if (fd < 0)
		die(name);
	return fd;
}

static void do_write(long n)
{
	int fd = fresh("written");

	begin();
	for (long i = 0; i < n; i++)
		if (write(fd, "x", 1) != 1)
			die("write");
	end();
	close(fd);
	unlink("written");
	told("write", n);
	told("create", 1);
	told("modify", 1);
	told("delete", 1);
}

static void do_null(long n)
{
	begin();
	for (long i = 0; i < n; i++)
		syscall(SYS_getppid);
	end();
	told("call", n);
}

static void do_idle(long ms)
{
	begin();
	until(now() + ms * 1000000LL);
	end();
}

/* Many processes change a file's mode, rate times a second in all: an event
 * for each call, however often. */
static void do_rate(long rate, long ms, long processes)
{
	long per = rate * ms / 1000 / processes;

	begin();
	for (long p = 0; p < processes; p++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (pid == 0) {
			char name[32];
			int fd;
			long done = 0;

			snprintf(name, sizeof(name), "rate.%ld", p);
			fd = fresh(name);
			unlink(name);
			for (long tick = 1; done < per; tick++) {
				for (; done < per * tick * 2 / ms && done < per; done++)
					if (fchmod(fd, 0600))
						die("fchmod");
				until(began + tick * 2000000LL);
			}
			_exit(0);
		}
	}
	for (long p = 0; p < processes; p++) {
		int status;

		if (wait(&status) < 0 || status != 0)
			die("child");
	}
	end();
	told("fork", processes);
	told("exit", processes);
	told("create", processes);
	told("delete", processes);
	told("chmod", per * processes);
}

/* A mix of files and processes, the same work again and again. Each round is
 * told with the time it took. */
static void do_mix(long seconds, long files)
{
	long rounds = 0;
	char name[32];

	begin();
	while (now() - began < seconds * 1000000000LL) {
		long long t = now();

		for (long i = 0; i < files; i++) {
			int fd;

			snprintf(name, sizeof(name), "mix.%ld", i);
			fd = fresh(name);
			if (write(fd, name, sizeof(name)) != sizeof(name) || fchmod(fd, 0640) || close(fd) || unlink(name))
				die(name);
		}
		start();
		printf("round=%lld\n", now() - t);
		rounds++;
	}
	end();
	told("fork", rounds);
	told("exec", rounds);
	told("exit", rounds);
	told("create", rounds * files);
	told("modify", rounds * files);
	told("chmod", rounds * files);
	told("delete", rounds * files);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	long a = argc > 2 ? atol(argv[2]) : 0, b = argc > 3 ? atol(argv[3]) : 0, c = argc > 4 ? atol(argv[4]) : 0;

	if (!strcmp(what, "nop"))
		return 0;
	else if (!strcmp(what, "exec"))
		do_exec(a);
	else if (!strcmp(what, "connect"))
		do_connect(a);
	else if (!strcmp(what, "udp"))
		do_udp(a);
	else if (!strcmp(what, "write"))
		do_write(a);
	else if (!strcmp(what, "null"))
		do_null(a);
	else if (!strcmp(what, "idle"))
		do_idle(a);
	else if (!strcmp(what, "rate") && b > 0 && c > 0)
		do_rate(a, b, c);
	else if (!strcmp(what, "mix"))
		do_mix(a, b);
	else {
		fprintf(stderr, "work: no workload %s\n", what);
		return 2;
	}
	printf("\n");
	return 0;
}
