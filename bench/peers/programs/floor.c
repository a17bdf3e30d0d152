/* The floor: the least a program can do to answer every request with one fixed response.
 *
 *   cc -O2 -o floor floor.c                             ./floor PORT DOCUMENT
 *   cc -O2 -DTLS -o floor_tls floor.c -lssl -lcrypto    ./floor_tls PORT DOCUMENT SERVER.PEM
 *
 * One thread, one epoll, one read and one write per request. It is not an HTTP server: it looks only for the empty
 * line that ends a request, supports neither conditional requests nor timeouts, and closes the connection of a
 * client that does not accept a response in one write. What a real server costs more than this is the price of HTTP.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#ifdef TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

enum { EVENTS = 512, LARGEST = 1 << 20, REQUEST = 65536 };

static char response[LARGEST + 512];
static int response_length;
static char request[REQUEST];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void render(const char *path) {
    static char body[LARGEST];
    FILE *file = fopen(path, "rb");
    if (!file) fail(path);
    int length = (int)fread(body, 1, sizeof body, file);
    fclose(file);
    int head = sprintf(response,
                       "HTTP/1.1 200 OK\r\nServer: floor\r\nContent-Type: application/json\r\n"
                       "ETag: \"0123456789abcdef\"\r\nCache-Control: public, max-age=1\r\n"
                       "Access-Control-Allow-Origin: *\r\nContent-Length: %d\r\n\r\n", length);
    memcpy(response + head, body, length);
    response_length = head + length;
}

static int listen_on(int port) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 4096)) fail("listen");
    return fd;
}

static int ends_a_request(int n) {
    return n >= 4 && !memcmp(request + n - 4, "\r\n\r\n", 4);
}

#ifdef TLS
static SSL_CTX *context(const char *pem) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (SSL_CTX_use_certificate_chain_file(ctx, pem) != 1 ||
        SSL_CTX_use_PrivateKey_file(ctx, pem, SSL_FILETYPE_PEM) != 1) fail(pem);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    return ctx;
}

static void *new_connection(SSL_CTX *ctx, int fd) {
    SSL *tls = SSL_new(ctx);
    SSL_set_fd(tls, fd);
    SSL_set_accept_state(tls);
    return tls;
}

/* Return 0 to keep the connection, -1 if it was closed. */
static int serve(SSL *tls) {
    int n = SSL_read(tls, request, sizeof request);
    if (n > 0) {
        if (!ends_a_request(n) || SSL_write(tls, response, response_length) > 0) return 0;
    } else {
        int error = SSL_get_error(tls, n);
        ERR_clear_error();
        if (error == SSL_ERROR_WANT_READ) return 0;
    }
    int fd = SSL_get_fd(tls);
    SSL_free(tls);
    close(fd);
    return -1;
}
#else
static int serve(int fd) {
    int n = (int)read(fd, request, sizeof request);
    if (n < 0 && errno == EAGAIN) return 0;
    if (n > 0 && (!ends_a_request(n) || write(fd, response, response_length) == response_length)) return 0;
    close(fd);
    return -1;
}
#endif

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    signal(SIGPIPE, SIG_IGN); /* writing to a client that has gone is an error, not the end of the program */
    render(argv[2]);
#ifdef TLS
    if (argc < 4) return 2;
    SSL_CTX *ctx = context(argv[3]);
#endif
    int listener = listen_on(atoi(argv[1])), poll = epoll_create1(0), one = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0}, events[EVENTS];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(poll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.u64 != 0) {
#ifdef TLS
                serve(events[i].data.ptr);
#else
                serve(events[i].data.fd);
#endif
                continue;
            }
            int fd;
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
#ifdef TLS
                event.data.ptr = new_connection(ctx, fd);
#else
                event.data.u64 = 0;
                event.data.fd = fd;
#endif
                epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
            }
        }
    }
}
