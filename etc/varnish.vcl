# Varnish before livestate: Varnish 7.1 (Debian 12) or later, as /etc/varnish/default.vcl.
#
# livestate is asked about once a second for each document and content coding, however many readers there are. While it
# is away, readers get the last document, for as long as livestate's `stale-if-error` says. Debian's unit listens on port
# 6081, and hitch.conf in this folder puts TLS before it.
vcl 4.1;

import std;

backend livestate {
    .host = "127.0.0.1";
    .port = "8080";
    .connect_timeout = 1s;
    # A document is sent at once or not at all.
    .first_byte_timeout = 2s;
    # Known to be away, livestate is not waited for. The probe also fails where livestate has no document yet.
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
    # Event streams and long polls, of which each reader has one of its own, and the viewer's files, which browsers keep.
    # A stream takes two of Varnish's threads, of which there are 10,000: for more than some thousand readers, have
    # haproxy.cfg send them past Varnish.
    if ((req.method != "GET" && req.method != "HEAD") || req.url ~ "^/_live/" || req.url ~ "^[^?]*/events(\?|$)" ||
        (req.http.If-None-Match && req.http.Prefer ~ "(?i)\bwait\s*=")) {
        return (pass);
    }

    # What does not choose the answer must not make one more of it to be asked for each second.
    unset req.http.Cookie;
    unset req.http.Authorization;
    set req.url = regsub(req.url, "\?.*$", "");
    # A document may change twice within a second, so that only entity tags tell.
    unset req.http.If-Modified-Since;
    # Accept-Encoding is spelled in dozens of ways; these four are all that matters, the smallest first.
    if (req.http.Accept-Encoding ~ "(?i)(^|,)\s*br\s*(,|$|;\s*q=(1|0?\.0*[1-9]))") {
        set req.http.X-Coding = "br";
    } elsif (req.http.Accept-Encoding ~ "(?i)(^|,)\s*zstd\s*(,|$|;\s*q=(1|0?\.0*[1-9]))") {
        set req.http.X-Coding = "zstd";
    } elsif (req.http.Accept-Encoding ~ "(?i)(^|,)\s*(x-)?gzip\s*(,|$|;\s*q=(1|0?\.0*[1-9]))") {
        set req.http.X-Coding = "gzip";
    } else {
        set req.http.X-Coding = "identity";
    }

    if (req.restarts == 1) {
        # Only what is a second over its time at most, while it is being asked for anew.
        set req.grace = 1s;
    } else {
        set req.grace = 1d;
    }
    return (hash);
}

# Not by Host: livestate answers alike under all names. Accept-Encoding is in the key, since Varnish leaves it out of
# Vary and asks for gzip alone.
sub vcl_hash {
    hash_data(req.url);
    hash_data(req.http.X-Coding);
    return (lookup);
}

sub vcl_hit {
    # Nobody has asked for a while: ask first, before something old is given out (and after that, if need be).
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
        # Long polls are held for 60 s at most.
        set bereq.first_byte_timeout = 75s;
    }
}

sub vcl_backend_response {
    if (bereq.http.X-Coding) {
        # Whole or not at all, should livestate end in the middle of it.
        set beresp.do_stream = false;
        if (beresp.status >= 500) {
            # Rather the document that there is.
            if (bereq.is_bgfetch || bereq.http.X-Stale) {
                return (abandon);
            }
            # Also errors are asked for just once a second.
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
        # An EventSource gives up for good after any other status than 200: have it come back.
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
    # Varnish 7.1 does not find it in a list.
    if (resp.http.ETag && std.strstr(req.http.If-None-Match, resp.http.ETag)) {
        set req.http.If-None-Match = resp.http.ETag;
    }
}

sub vcl_synth {
    # Asking first was in vain: give what there is.
    if (resp.status == 503 && req.http.X-Stale && req.restarts == 1) {
        return (restart);
    }
}
