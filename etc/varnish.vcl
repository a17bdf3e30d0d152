# Varnish in front of livestate: Varnish 7.1 (Debian 12) or later, as /etc/varnish/default.vcl.
#
# livestate gets about one request a second for each document and content coding, however many clients there are. While
# it is down, clients get the last document, for as long as livestate's `stale-if-error` says. Debian's unit listens on
# port 6081, and hitch.conf in this folder puts TLS in front of it.
vcl 4.1;

import std;

backend livestate {
    .host = "127.0.0.1";
    .port = "8080";
    .connect_timeout = 1s;
    # livestate sends a document at once or not at all.
    .first_byte_timeout = 2s;
    # Do not wait for livestate while it is known to be down. The probe also fails while livestate has no document yet.
    .probe = {
        .url = "/_live/ready";
        .interval = 1s;
        .timeout = 1s;
        .window = 1;
        .threshold = 1;
        .initial = 1;
    }
}

sub vcl_recv {
    if (req.restarts == 0) {
        unset req.http.X-Coding;
        unset req.http.X-Stale;
    }
    if (req.http.Upgrade ~ "(?i)^websocket$") {
        return (pipe);
    }
    # Event streams and long polls, which every client has for itself, and the viewer's files, which browsers cache. A
    # stream takes two of Varnish's 10,000 threads: for more than a few thousand subscribers, use haproxy.cfg, which
    # sends them past Varnish.
    if ((req.method != "GET" && req.method != "HEAD") || req.url ~ "^/_live/" || req.url ~ "^[^?]*/events(\?|$)" ||
        (req.http.If-None-Match && req.http.Prefer ~ "(?i)\bwait\s*=")) {
        return (pass);
    }

    # Whatever does not select the response must not cause another request to livestate every second.
    unset req.http.Cookie;
    unset req.http.Authorization;
    set req.url = regsub(req.url, "\?.*$", "");
    # A document may change twice within a second: only entity tags are precise enough.
    unset req.http.If-Modified-Since;
    # Accept-Encoding has dozens of spellings, but only these four responses exist, the smallest first. The choice is made
    # once: at a restart, Varnish has already reduced the field to gzip.
    if (req.restarts == 0) {
        if (req.http.Accept-Encoding ~ "(?i)(^|,)\s*br\s*(,|$|;\s*q=(1|0?\.0*[1-9]))") {
            set req.http.X-Coding = "br";
        } elsif (req.http.Accept-Encoding ~ "(?i)(^|,)\s*zstd\s*(,|$|;\s*q=(1|0?\.0*[1-9]))") {
            set req.http.X-Coding = "zstd";
        } elsif (req.http.Accept-Encoding ~ "(?i)(^|,)\s*(x-)?gzip\s*(,|$|;\s*q=(1|0?\.0*[1-9]))") {
            set req.http.X-Coding = "gzip";
        } else {
            set req.http.X-Coding = "identity";
        }
    }

    if (req.restarts == 1) {
        # Serve it at most a second past its expiry, while a new one is being fetched.
        set req.grace = 1s;
    } else {
        set req.grace = 1d;
    }
    return (hash);
}

# Not by Host: livestate gives the same response under all names. The coding is in the key, because Varnish leaves
# Accept-Encoding out of Vary and requests only gzip.
sub vcl_hash {
    hash_data(req.url);
    hash_data(req.http.X-Coding);
    return (lookup);
}

sub vcl_hit {
    # No client has asked for a while: try livestate first, and serve the old document only if that fails.
    if (obj.ttl < -1s && req.restarts == 0 && std.healthy(livestate)) {
        set req.http.X-Stale = "true";
        return (restart);
    }
}

sub vcl_pipe {
    set bereq.http.Upgrade = req.http.Upgrade;
    set bereq.http.Connection = "upgrade";
}

sub vcl_backend_fetch {
    if (bereq.http.X-Coding) {
        set bereq.http.Accept-Encoding = bereq.http.X-Coding;
    } else {
        # Long polls are held for at most 60 s.
        set bereq.first_byte_timeout = 75s;
    }
}

sub vcl_backend_response {
    if (bereq.http.X-Coding) {
        # All of it or nothing, if livestate exits in the middle.
        set beresp.do_stream = false;
        if (beresp.status >= 500) {
            # Prefer the cached document.
            if (bereq.is_bgfetch || bereq.http.X-Stale) {
                return (abandon);
            }
            # Request livestate only once a second, even during errors.
            set beresp.ttl = 1s;
            set beresp.grace = 0s;
            return (deliver);
        }
        if (beresp.ttl > 0s && beresp.http.Cache-Control ~ "stale-if-error=\d") {
            set beresp.grace = std.duration(
                regsub(beresp.http.Cache-Control, "^.*stale-if-error=(\d+).*$", "\1s"), 300s);
        }
    }
}

sub vcl_backend_error {
    if (bereq.is_bgfetch || bereq.http.X-Stale) {
        return (abandon);
    }
    set beresp.http.Cache-Control = "no-store";
    set beresp.http.Access-Control-Allow-Origin = "*";
    if (bereq.method == "GET" && bereq.url ~ "^[^?]*/events(\?|$)") {
        # An EventSource gives up for good after any status other than 200: make it reconnect.
        set beresp.status = 200;
        set beresp.reason = "OK";
        set beresp.http.Content-Type = "text/event-stream";
        synthetic("""retry: 3000

""");
    } else {
        set beresp.ttl = 1s;
        set beresp.http.Retry-After = "1";
        set beresp.http.Content-Type = "application/problem+json";
        synthetic("""{"title":"Service Unavailable","status":503,"detail":"livestate does not answer."}""");
    }
    return (deliver);
}

sub vcl_deliver {
    # Varnish 7.1 does not find the tag in a list.
    if (resp.http.ETag && std.strstr(req.http.If-None-Match, resp.http.ETag)) {
        set req.http.If-None-Match = resp.http.ETag;
    }
}

sub vcl_synth {
    # Trying livestate first failed: serve the cached document.
    if (resp.status == 503 && req.http.X-Stale && req.restarts == 1) {
        return (restart);
    }
}
