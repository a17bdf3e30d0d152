/**
 * A live JSON document, kept up to date: in a page, or in Node.js 18 or later.
 *
 *     import { subscribe } from "/_live/livestate.js";
 *     const end = subscribe("/results.json", (state) => draw(state));
 *
 * Theory of operation. Three ways lead to the document, tried in this order:
 *
 * - `events`: the stream at URL + `/events` (HTML Standard section 9.2), with merge patches (RFC 7396) for changes.
 * - `long-poll`: the document, asked with `If-None-Match` and `Prefer: wait=30` (RFC 7240), held until it changes.
 * - `poll`: the document, asked each second, where nothing in between lets an answer wait.
 *
 * A stream that never gives a byte (a proxy gathers it), or is refused, is not waited for: the document is asked for
 * meanwhile, and the stream tried again after 5 s, 10 s and so on up to 5 minutes. Where asking fails too, the server is
 * away: it is tried again after pauses that double, each longer by chance, so that readers do not come all at once.
 *
 * States are never changed once they are handed out. What is equal in the next state is the same object as before, in a
 * patch or not: `===` tells what changed.
 *
 * @module
 */

/** @typedef {"events" | "long-poll" | "poll"} Transport */

/**
 * What is known of a state.
 *
 * @typedef {object} Info
 * @property {Transport} transport the way it came
 * @property {number | null} version of the document; it only grows; null where the state was asked for
 * @property {string | null} etag the entity tag, where the state was asked for
 * @property {unknown} patch the merge patch that led to it; undefined where the state came whole
 * @property {number} bytes of content that brought it, as counted on the wire where that is told
 * @property {number} received bytes of content since the beginning
 */

/**
 * How it goes.
 *
 * - `connecting`: nothing yet, or the stream has ended and is being opened again;
 * - `live`: the stream is open; - `polling`: the document is asked for instead;
 * - `offline`: nothing answers; it is tried again; - `paused`: the page is hidden; - `ended`.
 *
 * @typedef {object} Status
 * @property {"connecting" | "live" | "polling" | "offline" | "paused" | "ended"} state
 * @property {Transport | null} transport what is in use
 * @property {string | null} reason why it is not, or no longer, `live`
 */

/**
 * @typedef {object} Options
 * @property {AbortSignal} [signal] ends the subscription
 * @property {(status: Status) => void} [onStatus] called with each change of the status
 * @property {"merge" | "none"} [delta] whether changes come as merge patches (default) or whole
 * @property {"pause" | "continue"} [hidden] whether a page that is hidden pauses (default), or goes on
 * @property {RequestCredentials} [credentials] as for `fetch`
 * @property {typeof fetch} [fetch] used in place of the global one
 * @property {Partial<typeof TIMES>} [times] other times than the usual ones
 */

/** Milliseconds. */
const TIMES = {
  /** Until the first byte of a stream; the server sends one at once. */
  patience: 5_000,
  /** Without any byte on a stream: three of the server's heartbeats of 15 s. */
  silence: 45_000,
  /** Before the stream is opened again, until the server names another time (`retry:`). */
  retry: 2_000,
  /** The longest pause while the server is away. */
  longest: 30_000,
  /** Before a stream that was blocked is tried again: at first, and at most. */
  again: 5_000,
  seldom: 300_000,
  /** Between two questions. */
  interval: 1_000,
  /** How long a question may be held. */
  wait: 30_000,
  /** Until an answer is given up, beside the time that it may be held. */
  answer: 10_000,
  /** How long a page is hidden before it pauses: looking at another tab for a moment costs no new connection. */
  hidden: 10_000,
};

/** The longest that a server's `retry:` or `Retry-After` is obeyed, in milliseconds. */
const LONGEST_ASKED = 300_000;

/**
 * Have `onState` called with the document now and whenever it changes, until it is ended.
 *
 * Nothing is thrown: what goes wrong is told to `onStatus`, and mended.
 *
 * @template [T=any]
 * @param {string | URL} url of the document
 * @param {(state: T, info: Info) => void} onState called with each state, to be read only
 * @param {Options} [options]
 * @returns {() => void} ends it
 */
export function subscribe(url, onState, options = {}) {
  const subscription = new Subscription(url, onState, options);
  subscription.run();
  return () => subscription.end();
}

/** Something that went wrong on the way to the document, to be told to people. */
class Failure extends Error {
  /**
   * @param {string} message
   * @param {number} [retryAfter] milliseconds that the server asks for
   */
  constructor(message, retryAfter) {
    super(message);
    this.retryAfter = retryAfter;
  }
}

/** What came is not what it should be. */
class Wrong extends Failure {}

/** One document that is followed. */
class Subscription {
  /**
   * @param {string | URL} url
   * @param {(state: any, info: Info) => void} onState
   * @param {Options} options
   */
  constructor(url, onState, options) {
    this.url = url;
    this.onState = onState;
    this.options = options;
    this.times = { ...TIMES, ...options.times };
    this.retry = this.times.retry;
    this.ending = new AbortController();
    /** The requests that are under way. @type {Set<AbortController>} */
    this.requests = new Set();
    /** Ends the pause that is being made. */
    this.nap = new AbortController();
    /** Asking in place of the stream, while that goes on. @type {Asking | null} */
    this.asking = null;
    this.isHidden = false;
    /** @type {any} */
    this.state = undefined;
    /** The id of the state's event, where it came from a stream; its entity tag, where it was asked for. */
    this.eventId = "";
    this.etag = "";
    this.received = 0;
    /** @type {Status} */
    this.status = { state: "ended", transport: null, reason: null };
  }

  get ended() {
    return this.ending.signal.aborted;
  }

  end() {
    if (this.ended) return;
    this.ending.abort();
    this.hangUp();
    this.tell("ended", null, null);
  }

  /** End all requests and pauses. */
  hangUp() {
    for (const request of this.requests) request.abort();
    this.asking = null;
    this.nap.abort();
  }

  async run() {
    const { signal } = this.options;
    signal?.addEventListener("abort", () => this.end(), { signal: this.ending.signal });
    this.watchPage();
    // Callers are told nothing before `subscribe` has returned.
    await null;
    try {
      if (signal?.aborted) this.end();
      else await this.follow(eventsURL(this.url, this.options.delta ?? "merge"));
    } catch (error) {
      // Such as a URL that is none.
      this.tell("offline", null, String(error));
      this.end();
    }
  }

  /**
   * Keep the stream open, and ask while that is not possible.
   *
   * @param {URL} events
   */
  async follow(events) {
    let failures = 0;
    let blocked = 0;
    while (!this.ended) {
      this.nap = new AbortController();
      if (this.isHidden) {
        this.tell("paused", null, "the page is hidden");
        await sleep(Infinity, this.nap.signal);
        continue;
      }
      if (this.status.state === "ended" || this.status.state === "paused") this.tell("connecting", null, null);
      const { lived, reason } = await this.stream(events);
      if (this.ended || this.isHidden) continue;
      if (lived) {
        failures = blocked = 0;
        this.tell("connecting", null, reason);
        await sleep(longer(this.retry, 0, this.retry), this.nap.signal);
        continue;
      }
      const asking = (this.asking ??= new Asking(this, reason));
      const failure = await asking.first;
      if (this.ended || this.isHidden) continue;
      if (failure) {
        this.tell("offline", null, failure.message);
        const pause = failure.retryAfter ? longer(failure.retryAfter, 0) : this.pauseAfter(failures++);
        await sleep(pause, this.nap.signal);
      } else {
        failures = 0;
        await sleep(longer(this.times.again, blocked++, this.times.seldom), this.nap.signal);
      }
    }
  }

  /** @param {number} failures that came before in a row */
  pauseAfter(failures) {
    return longer(this.retry, failures, Math.max(this.times.longest, this.retry));
  }

  /**
   * Follow the stream to its end.
   *
   * @param {URL} events
   * @returns {Promise<{lived: boolean, reason: string}>} whether it gave anything (and nothing wrong), and why it ended
   */
  async stream(events) {
    const request = new Request(this, "the event stream");
    let lived = false;
    try {
      /** @type {Record<string, string>} */
      const fields = { Accept: "text/event-stream" };
      if (this.eventId) fields["Last-Event-ID"] = this.eventId;
      request.limit(this.times.patience, "gives nothing: something in between may gather it");
      const response = await request.send(events, fields);
      if (response.status !== 200) throw new Failure(`the event stream answered ${response.status}`);
      if (!response.body || !/^text\/event-stream\b/i.test(response.headers.get("Content-Type") ?? "")) {
        throw new Failure("there is no event stream");
      }
      const reader = response.body.getReader();
      const decoder = new TextDecoder();
      const parser = new EventParser();
      let bytes = 0;
      for (;;) {
        const { done, value } = await reader.read();
        request.arrived();
        if (done) return { lived, reason: "the event stream ended" };
        if (!lived) {
          lived = true;
          this.asking?.stop();
          this.tell("live", "events", null);
        }
        bytes += value.length;
        this.received += value.length;
        for (const event of parser.push(decoder.decode(value, { stream: true }))) {
          this.take(event, bytes);
          bytes = 0;
          request.arrived();
        }
        request.limit(this.times.silence, "is silent");
        if (parser.retry !== null) this.retry = Math.min(parser.retry, LONGEST_ASKED);
      }
    } catch (error) {
      const reason = request.why(error);
      if (!(error instanceof Wrong)) return { lived, reason };
      // The state that is held may be wrong as well: a fresh one is asked for.
      this.eventId = "";
      return { lived: false, reason };
    } finally {
      request.close();
    }
  }

  /**
   * Take an event of the stream.
   *
   * @param {StreamEvent} event
   * @param {number} bytes
   */
  take({ type, data, id }, bytes) {
    if (type !== "message" && type !== "patch") return;
    const isPatch = type === "patch";
    if (isPatch && !this.eventId) throw new Wrong("the event stream gave a patch to a state that is not held");
    const content = parsed(data, "what the event stream gave is");
    const state = isPatch ? merge(this.state, content) : share(this.state, content);
    this.eventId = id;
    this.etag = "";
    // VERSION-TAG, where the tag names the document's bytes.
    const version = /^[0-9]+(?=-|$)/.test(id) ? parseInt(id, 10) : null;
    this.give(state, { transport: "events", version, etag: null, patch: isPatch ? content : undefined, bytes });
  }

  /**
   * Ask for the document once.
   *
   * @param {Request} request
   * @param {boolean} mayWait whether it is asked to be held until it changes
   * @returns {Promise<boolean>} whether it was held
   */
  async ask(request, mayWait) {
    const { etag, times } = this;
    const wait = mayWait && etag ? Math.ceil(times.wait / 1000) : 0;
    /** @type {Record<string, string>} */
    const fields = { Accept: "application/json" };
    if (etag) fields["If-None-Match"] = etag;
    if (wait) fields["Prefer"] = `wait=${wait}`;
    request.limit(times.answer + (wait ? times.wait : 0), "gives no answer");
    const begun = Date.now();
    const response = await request.send(new URL(this.url, base()), fields);
    const text = await response.text();
    request.arrived();
    // An answer out of a cache may say that it waited, but comes at once.
    const applied = wait > 0 && response.headers.has("Preference-Applied");
    if (response.status === 304) return applied && Date.now() - begun > times.interval / 2;
    if (response.status !== 200) {
      const seconds = Number(response.headers.get("Retry-After"));
      const after = seconds > 0 ? Math.min(seconds * 1000, LONGEST_ASKED) : undefined;
      throw new Failure(`the document answered ${response.status}`, after);
    }
    const state = share(this.state, parsed(text, "the document is"));
    this.eventId = "";
    this.etag = response.headers.get("ETag") ?? "";
    const bytes = Number(response.headers.get("Content-Length")) || new TextEncoder().encode(text).length;
    this.received += bytes;
    const transport = applied ? "long-poll" : "poll";
    this.give(state, { transport, version: null, etag: this.etag || null, patch: undefined, bytes });
    return applied && this.etag !== etag;
  }

  /**
   * Hand a state out.
   *
   * @param {any} state
   * @param {Omit<Info, "received">} info
   */
  give(state, info) {
    if (this.ended) return;
    this.state = state;
    guarded(() => this.onState(state, { ...info, received: this.received }));
  }

  /**
   * @param {Status["state"]} state
   * @param {Transport | null} transport
   * @param {string | null} reason
   */
  tell(state, transport, reason) {
    const { status } = this;
    if (status.state === state && status.transport === transport && status.reason === reason) return;
    if (this.ended && state !== "ended") return;
    this.status = { state, transport, reason };
    guarded(() => this.options.onStatus?.({ ...this.status }));
  }

  /** Pause while the page is hidden; waste no time once it is shown, or the network is back. */
  watchPage() {
    const { signal } = this.ending;
    globalThis.addEventListener?.("online", () => this.nap.abort(), { signal });
    if (this.options.hidden === "continue" || typeof document === "undefined") return;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const look = () => {
      clearTimeout(timer);
      if (document.visibilityState === "hidden") {
        timer = setTimeout(() => {
          this.isHidden = true;
          this.hangUp();
        }, this.times.hidden);
      } else {
        this.isHidden = false;
        this.nap.abort();
      }
    };
    document.addEventListener("visibilitychange", look, { signal });
    signal.addEventListener("abort", () => clearTimeout(timer));
    if (document.visibilityState === "hidden") look();
  }
}

/** One request, with a limit in time that can be moved. */
class Request {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #late = "";
  #controller = new AbortController();

  /**
   * @param {Subscription} subscription
   * @param {string} what is asked for
   */
  constructor(subscription, what) {
    this.subscription = subscription;
    this.what = what;
    subscription.requests.add(this.#controller);
  }

  get signal() {
    return this.#controller.signal;
  }

  /**
   * @param {URL} url
   * @param {Record<string, string>} headers
   */
  send(url, headers) {
    const { options } = this.subscription;
    const send = options.fetch ?? fetch;
    /** @type {RequestInit} */
    const init = { headers, signal: this.signal, cache: "no-store" };
    if (options.credentials) init.credentials = options.credentials;
    return send(url, init);
  }

  /**
   * Give up after so many milliseconds from now.
   *
   * @param {number} milliseconds
   * @param {string} late what is to be told then
   */
  limit(milliseconds, late) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#late = late;
      this.#controller.abort();
    }, milliseconds);
  }

  /** End the limit; go no further if the request is over. */
  arrived() {
    clearTimeout(this.#timer);
    this.signal.throwIfAborted();
  }

  /** @param {unknown} error */
  why(error) {
    if (this.#late) return `${this.what} ${this.#late}`;
    if (error instanceof Failure) return error.message;
    return `${this.what} cannot be reached`;
  }

  close() {
    clearTimeout(this.#timer);
    this.#controller.abort();
    this.subscription.requests.delete(this.#controller);
  }
}

/** Asks for the document again and again, as long as that works. */
class Asking {
  /**
   * @param {Subscription} subscription
   * @param {string} reason why the stream is not used
   */
  constructor(subscription, reason) {
    this.subscription = subscription;
    this.reason = reason;
    this.request = new Request(subscription, "the document");
    /** What the first question came to: a failure, or nothing. @type {Promise<Failure | null>} */
    this.first = new Promise((resolve) => this.run(resolve));
  }

  /** @param {(failure: Failure | null) => void} first */
  async run(first) {
    const { request, subscription } = this;
    const { signal } = request;
    let mayWait = true;
    let answers = 0;
    let failure = null;
    try {
      while (!signal.aborted) {
        let held;
        try {
          held = await subscription.ask(request, mayWait);
        } catch (error) {
          if (signal.aborted || !mayWait || !answers || error instanceof Wrong) throw error;
          // It may be the waiting that is not let through.
          mayWait = false;
          continue;
        }
        answers += 1;
        first(null);
        if (signal.aborted) break;
        subscription.tell("polling", held ? "long-poll" : "poll", this.reason);
        // With the entity tag that came first, the second question is one to wait for.
        const isNext = held || (answers === 1 && subscription.etag !== "");
        if (!isNext) await sleep(subscription.times.interval * (0.9 + Math.random() / 5), signal);
      }
    } catch (error) {
      failure = new Failure(request.why(error), error instanceof Failure ? error.retryAfter : undefined);
    }
    first(failure);
    request.close();
    if (subscription.asking !== this) return;
    subscription.asking = null;
    // What worked works no more: the stream is tried at once, and a pause made if that fails too.
    if (answers) subscription.nap.abort();
  }

  /** Ask no more. */
  stop() {
    this.subscription.asking = null;
    this.request.close();
  }
}

/** @typedef {{type: string, data: string, id: string}} StreamEvent */

/** Reads an event stream in pieces, cut anywhere (HTML Standard section 9.2.6). */
export class EventParser {
  /** Milliseconds that the server asks for before the next connection. @type {number | null} */
  retry = null;
  #line = "";
  #afterReturn = false;
  /** @type {string[]} */
  #data = [];
  #type = "";
  #id = "";

  /**
   * Take a piece, and give the events that end in it.
   *
   * @param {string} text decoded, without a byte order mark
   * @returns {StreamEvent[]}
   */
  push(text) {
    /** @type {StreamEvent[]} */
    const events = [];
    if (text === "") return events;
    // A line may end with CR LF, cut in between.
    const piece = this.#afterReturn && text.startsWith("\n") ? text.slice(1) : text;
    this.#afterReturn = text.endsWith("\r");
    const lines = piece.split(/\r\n|\n|\r/);
    lines[0] = this.#line + lines[0];
    this.#line = lines.pop() ?? "";
    for (const line of lines) {
      if (line !== "") {
        this.#field(line);
        continue;
      }
      if (this.#data.length > 0) {
        events.push({ type: this.#type || "message", data: this.#data.join("\n"), id: this.#id });
      }
      this.#data = [];
      this.#type = "";
    }
    return events;
  }

  /** @param {string} line */
  #field(line) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#type = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.retry = Number(value);
  }
}

/**
 * Apply a merge patch (RFC 7396 section 2). Neither argument is changed; what stays equal stays the same object.
 *
 * @param {any} target
 * @param {any} patch
 * @returns {any}
 */
export function merge(target, patch) {
  if (!isObject(patch)) return share(target, patch);
  let result = isObject(target) ? target : {};
  for (const key of Object.keys(patch)) {
    const there = Object.hasOwn(result, key);
    const value = patch[key] === null ? undefined : merge(there ? result[key] : undefined, patch[key]);
    if (value === undefined ? !there : there && value === result[key]) continue;
    if (result === target) result = { ...target };
    if (value === undefined) delete result[key];
    // Assigned, "__proto__" would not be a member like any other.
    else Object.defineProperty(result, key, { value, writable: true, enumerable: true, configurable: true });
  }
  return result;
}

/**
 * Give `next` with whatever in it is equal to `previous` exchanged for that, so that equal parts are identical.
 *
 * @param {any} previous is left as it is
 * @param {any} next fresh from the parser: parts of it are exchanged in place
 * @returns {any} `previous` itself where all is equal
 */
export function share(previous, next) {
  if (typeof previous !== "object" || typeof next !== "object" || !previous || !next) return next;
  if (Array.isArray(previous) !== Array.isArray(next)) return next;
  const keys = Object.keys(next);
  let equal = keys.length === Object.keys(previous).length;
  for (const key of keys) {
    if (Object.hasOwn(previous, key)) next[key] = share(previous[key], next[key]);
    equal &&= Object.hasOwn(previous, key) && next[key] === previous[key];
  }
  return equal ? previous : next;
}

/**
 * Read JSON.
 *
 * @param {string} text
 * @param {string} whose what is to be told if it is none
 */
function parsed(text, whose) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Wrong(`${whose} not JSON: ${error instanceof Error ? error.message : error}`);
  }
}

/** @param {unknown} value */
function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** What relative URLs are relative to; nothing in Node.js. */
function base() {
  return typeof document === "undefined" ? undefined : document.baseURI;
}

/**
 * Give the address of a document's event stream.
 *
 * @param {string | URL} url
 * @param {string} delta
 */
function eventsURL(url, delta) {
  const events = new URL(url, base());
  events.pathname = events.pathname.replace(/\/$/, "") + "/events";
  events.hash = "";
  if (delta === "merge") events.searchParams.set("delta", "merge");
  return events;
}

/**
 * Give a pause: doubled with each failure before, and longer by up to a half, by chance.
 *
 * @param {number} milliseconds
 * @param {number} failures
 * @param {number} [most]
 */
function longer(milliseconds, failures, most = Infinity) {
  return Math.min(milliseconds * 2 ** failures, most) * (1 + Math.random() / 2);
}

/**
 * Wait, or until the signal comes.
 *
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
function sleep(milliseconds, signal) {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const wake = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", wake);
      resolve();
    };
    const timer = milliseconds === Infinity ? undefined : setTimeout(wake, milliseconds);
    signal.addEventListener("abort", wake);
  });
}

/**
 * Call what a user of this module gave; its errors are its own, and shown, but end nothing here.
 *
 * @param {() => void} call
 */
function guarded(call) {
  try {
    call();
  } catch (error) {
    console.error(error);
  }
}
