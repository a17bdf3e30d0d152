/**
 * Follow a live JSON document, in a web page or in Node.js 18 or later.
 *
 *     import { subscribe } from "/_live/livestate.js";
 *     const unsubscribe = subscribe("/results.json", (state) => draw(state));
 *
 * Theory of operation. There are three transports, tried in this order:
 *
 * - `events`: the event stream at URL + `/events` (HTML Standard section 9.2), which sends changes as merge patches
 *   (RFC 7396).
 * - `long-poll`: requests for the document with `If-None-Match` and `Prefer: wait=30` (RFC 7240), which the server
 *   holds until the document changes.
 * - `poll`: a request for the document every second, where a proxy does not let the server hold a response.
 *
 * If the stream is refused, or delivers no byte (a proxy buffers it), the subscription polls instead, and tries the
 * stream again after 5 s, 10 s and so on up to 5 minutes. If polling fails too, the server is unreachable; it is tried
 * again with exponential back-off and jitter, so that clients do not all come back at once.
 *
 * A state is never modified after it was passed to the callback. Parts of the next state that are equal to the previous
 * one are the same objects, whether they came in a patch or not, so `===` tells what changed.
 *
 * @module
 */

/** @typedef {"events" | "long-poll" | "poll"} Transport */

/**
 * Details of a state.
 *
 * @typedef {object} Info
 * @property {Transport} transport how it arrived
 * @property {number | null} version version number of the document, which only increases; null if the state was polled
 * @property {string | null} etag the entity tag, if the state was polled
 * @property {unknown} patch the merge patch that led to this state; undefined if the whole state was sent
 * @property {number} bytes size of the content that carried it, as compressed if the response has a `Content-Length`
 * @property {number} received bytes of content received since the subscription started
 */

/**
 * The status of a subscription.
 *
 * - `connecting`: nothing received yet, or the stream ended and is being reopened;
 * - `live`: the stream is open;
 * - `polling`: the document is polled instead;
 * - `offline`: the server does not answer, retrying;
 * - `paused`: the page is hidden;
 * - `ended`: the subscription was cancelled.
 *
 * @typedef {object} Status
 * @property {"connecting" | "live" | "polling" | "offline" | "paused" | "ended"} state
 * @property {Transport | null} transport the transport in use
 * @property {string | null} reason why the status is not, or no longer, `live`
 */

/**
 * @typedef {object} Options
 * @property {AbortSignal} [signal] ends the subscription when aborted
 * @property {(status: Status) => void} [onStatus] called whenever the status changes
 * @property {"merge" | "none"} [delta] whether changes are sent as merge patches (default) or as whole states
 * @property {"pause" | "continue"} [hidden] whether the subscription pauses (default) or continues in a hidden page
 * @property {RequestCredentials} [credentials] as for `fetch`
 * @property {typeof fetch} [fetch] used instead of the global `fetch`
 * @property {Partial<typeof TIMES>} [times] timeouts and intervals that override the defaults
 */

/** Default timeouts and intervals, in milliseconds. */
const TIMES = {
  /** Timeout for the first byte of a stream. The server sends one at once. */
  patience: 5_000,
  /** Timeout for further bytes of a stream: three times the server's heartbeat interval of 15 s. */
  silence: 45_000,
  /** Delay before the stream is reopened, unless the server sends another (`retry:`). */
  retry: 2_000,
  /** Maximum delay between attempts while the server is unreachable. */
  longest: 30_000,
  /** Delay before a blocked stream is tried again; it doubles with each attempt. */
  again: 5_000,
  /** Maximum delay before a blocked stream is tried again. */
  seldom: 300_000,
  /** Interval between polls. */
  interval: 1_000,
  /** How long the server may hold a long poll. */
  wait: 30_000,
  /** Timeout for a response, in addition to the time that the server may hold it. */
  answer: 10_000,
  /** How long a page must be hidden before the subscription pauses. A glance at another tab costs no new connection. */
  hidden: 10_000,
};

/** Upper limit for a delay that the server asks for (`retry:` or `Retry-After`), in milliseconds. */
const MAX_SERVER_DELAY = 300_000;

/**
 * Call `onState` with the current document, and again whenever it changes.
 *
 * Throws no error: failures are reported to `onStatus` and retried.
 *
 * @template [T=any]
 * @param {string | URL} url of the document
 * @param {(state: T, info: Info) => void} onState called with each state, which it must not modify
 * @param {Options} [options]
 * @returns {() => void} a function that ends the subscription
 */
export function subscribe(url, onState, options = {}) {
  const subscription = new Subscription(url, onState, options);
  subscription.run();
  return () => subscription.end();
}

/** The document could not be fetched. The message is meant for people. */
class Failure extends Error {
  /**
   * @param {string} message
   * @param {number} [retryAfter] delay that the server asked for, in milliseconds
   */
  constructor(message, retryAfter) {
    super(message);
    this.retryAfter = retryAfter;
  }
}

/** The server sent content that cannot be used. */
class InvalidContent extends Failure {}

/** Follows one document. */
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
    /** The requests in flight. @type {Set<AbortController>} */
    this.requests = new Set();
    /** Ends the current pause when aborted. */
    this.pause = new AbortController();
    /** Polls the document while the stream is not available. @type {Poller | null} */
    this.poller = null;
    this.isHidden = false;
    /** @type {any} */
    this.state = undefined;
    /** The id of the event that carried the state; empty if the state was polled. */
    this.eventId = "";
    /** The entity tag of the state; empty if the state came from a stream. */
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
    this.abortRequests();
    this.setStatus("ended", null, null);
  }

  /** Abort all requests and end the current pause. */
  abortRequests() {
    for (const request of this.requests) request.abort();
    this.poller = null;
    this.pause.abort();
  }

  async run() {
    const { signal } = this.options;
    signal?.addEventListener("abort", () => this.end(), { signal: this.ending.signal });
    this.watchPage();
    // Call no callback before `subscribe` has returned.
    await null;
    try {
      if (signal?.aborted) this.end();
      else await this.follow(eventsURL(this.url, this.options.delta ?? "merge"));
    } catch (error) {
      // For example an invalid URL.
      this.setStatus("offline", null, String(error));
      this.end();
    }
  }

  /**
   * Keep the stream open, and poll while that is not possible.
   *
   * @param {URL} events
   */
  async follow(events) {
    let failures = 0;
    let blocked = 0;
    while (!this.ended) {
      this.pause = new AbortController();
      if (this.isHidden) {
        this.setStatus("paused", null, "the page is hidden");
        await sleep(Infinity, this.pause.signal);
        continue;
      }
      if (this.status.state === "ended" || this.status.state === "paused") this.setStatus("connecting", null, null);
      const { wasLive, reason } = await this.readStream(events);
      if (this.ended || this.isHidden) continue;
      if (wasLive) {
        failures = blocked = 0;
        this.setStatus("connecting", null, reason);
        await sleep(backoff(this.retry, 0, this.retry), this.pause.signal);
        continue;
      }
      const poller = (this.poller ??= new Poller(this, reason));
      const failure = await poller.firstResult;
      if (this.ended || this.isHidden) continue;
      if (failure) {
        this.setStatus("offline", null, failure.message);
        const delay = failure.retryAfter ? backoff(failure.retryAfter, 0) : this.offlineDelay(failures++);
        await sleep(delay, this.pause.signal);
      } else {
        failures = 0;
        await sleep(backoff(this.times.again, blocked++, this.times.seldom), this.pause.signal);
      }
    }
  }

  /**
   * Return the delay before the next attempt while the server is unreachable, in milliseconds.
   *
   * @param {number} failures consecutive failures before this one
   */
  offlineDelay(failures) {
    return backoff(this.retry, failures, Math.max(this.times.longest, this.retry));
  }

  /**
   * Read the stream until it ends.
   *
   * @param {URL} events
   * @returns {Promise<{wasLive: boolean, reason: string}>} whether it delivered anything (and no invalid content), and
   *   why it ended
   */
  async readStream(events) {
    const request = new TimedRequest(this, "the event stream");
    let wasLive = false;
    try {
      /** @type {Record<string, string>} */
      const fields = { Accept: "text/event-stream" };
      if (this.eventId) fields["Last-Event-ID"] = this.eventId;
      request.startTimeout(this.times.patience, "sends no data; a proxy may be buffering it");
      const response = await request.send(events, fields);
      if (response.status !== 200) throw new Failure(`the event stream returned status ${response.status}`);
      if (!response.body || !/^text\/event-stream\b/i.test(response.headers.get("Content-Type") ?? "")) {
        throw new Failure("the response is not an event stream");
      }
      const reader = response.body.getReader();
      const decoder = new TextDecoder();
      const parser = new EventParser();
      let bytes = 0;
      for (;;) {
        const { done, value } = await reader.read();
        request.stopTimeout();
        if (done) return { wasLive, reason: "the event stream ended" };
        if (!wasLive) {
          wasLive = true;
          this.poller?.stop();
          this.setStatus("live", "events", null);
        }
        bytes += value.length;
        this.received += value.length;
        for (const event of parser.push(decoder.decode(value, { stream: true }))) {
          this.handleEvent(event, bytes);
          bytes = 0;
          // Read no further if a callback has ended the subscription.
          request.stopTimeout();
        }
        request.startTimeout(this.times.silence, "has gone silent");
        if (parser.retry !== null) this.retry = Math.min(parser.retry, MAX_SERVER_DELAY);
      }
    } catch (error) {
      const reason = request.describe(error);
      if (!(error instanceof InvalidContent)) return { wasLive, reason };
      // The current state may be invalid as well: without an event id, the server sends a whole state.
      this.eventId = "";
      return { wasLive: false, reason };
    } finally {
      request.close();
    }
  }

  /**
   * Handle an event of the stream.
   *
   * @param {StreamEvent} event
   * @param {number} bytes
   */
  handleEvent({ type, data, id }, bytes) {
    if (type !== "message" && type !== "patch") return;
    const isPatch = type === "patch";
    if (isPatch && !this.eventId) throw new InvalidContent("the event stream sent a patch without a state before it");
    const content = parseJSON(data, "the event's data is");
    const state = isPatch ? merge(this.state, content) : share(this.state, content);
    this.eventId = id;
    this.etag = "";
    // The id is VERSION-TAG; the tag identifies the document's bytes.
    const version = /^[0-9]+(?=-|$)/.test(id) ? parseInt(id, 10) : null;
    this.emit(state, { transport: "events", version, etag: null, patch: isPatch ? content : undefined, bytes });
  }

  /**
   * Request the document once.
   *
   * @param {TimedRequest} request
   * @param {boolean} longPoll whether the server may hold the response until the document changes
   * @returns {Promise<boolean>} whether the response was held
   */
  async poll(request, longPoll) {
    const { etag, times } = this;
    const wait = longPoll && etag ? Math.ceil(times.wait / 1000) : 0;
    /** @type {Record<string, string>} */
    const fields = { Accept: "application/json" };
    if (etag) fields["If-None-Match"] = etag;
    if (wait) fields["Prefer"] = `wait=${wait}`;
    request.startTimeout(times.answer + (wait ? times.wait : 0), "was not received in time");
    const startedAt = Date.now();
    const response = await request.send(new URL(this.url, baseURL()), fields);
    const text = await response.text();
    request.stopTimeout();
    // A cached response may claim that it was held although it arrives at once.
    const applied = wait > 0 && response.headers.has("Preference-Applied");
    if (response.status === 304) return applied && Date.now() - startedAt > times.interval / 2;
    if (response.status !== 200) {
      const seconds = Number(response.headers.get("Retry-After"));
      const retryAfter = seconds > 0 ? Math.min(seconds * 1000, MAX_SERVER_DELAY) : undefined;
      throw new Failure(`the document returned status ${response.status}`, retryAfter);
    }
    const state = share(this.state, parseJSON(text, "the document is"));
    this.eventId = "";
    this.etag = response.headers.get("ETag") ?? "";
    const bytes = Number(response.headers.get("Content-Length")) || new TextEncoder().encode(text).length;
    this.received += bytes;
    const transport = applied ? "long-poll" : "poll";
    this.emit(state, { transport, version: null, etag: this.etag || null, patch: undefined, bytes });
    return applied && this.etag !== etag;
  }

  /**
   * Store a state and pass it to the callback.
   *
   * @param {any} state
   * @param {Omit<Info, "received">} info
   */
  emit(state, info) {
    if (this.ended) return;
    this.state = state;
    callSafely(() => this.onState(state, { ...info, received: this.received }));
  }

  /**
   * Report a status, unless it is the current one.
   *
   * @param {Status["state"]} state
   * @param {Transport | null} transport
   * @param {string | null} reason
   */
  setStatus(state, transport, reason) {
    const { status } = this;
    if (status.state === state && status.transport === transport && status.reason === reason) return;
    if (this.ended && state !== "ended") return;
    this.status = { state, transport, reason };
    callSafely(() => this.options.onStatus?.({ ...this.status }));
  }

  /** Pause while the page is hidden, and reconnect at once when it is shown or the network is back. */
  watchPage() {
    const { signal } = this.ending;
    globalThis.addEventListener?.("online", () => this.pause.abort(), { signal });
    if (this.options.hidden === "continue" || typeof document === "undefined") return;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const visibilityChanged = () => {
      clearTimeout(timer);
      if (document.visibilityState === "hidden") {
        timer = setTimeout(() => {
          this.isHidden = true;
          this.abortRequests();
        }, this.times.hidden);
      } else {
        this.isHidden = false;
        this.pause.abort();
      }
    };
    document.addEventListener("visibilitychange", visibilityChanged, { signal });
    signal.addEventListener("abort", () => clearTimeout(timer));
    if (document.visibilityState === "hidden") visibilityChanged();
  }
}

/** A request, or a series of them, with a timeout that can be reset. */
class TimedRequest {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #timeoutReason = "";
  #controller = new AbortController();

  /**
   * @param {Subscription} subscription
   * @param {string} what name of the requested resource, the subject of error messages
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
   * Start the timeout again: abort the request after some time from now.
   *
   * @param {number} milliseconds
   * @param {string} reason what to report then, without the subject
   */
  startTimeout(milliseconds, reason) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#timeoutReason = reason;
      this.#controller.abort();
    }, milliseconds);
  }

  /** Stop the timeout, and throw if the request was aborted. */
  stopTimeout() {
    clearTimeout(this.#timer);
    this.signal.throwIfAborted();
  }

  /**
   * Describe an error for people.
   *
   * @param {unknown} error
   */
  describe(error) {
    if (this.#timeoutReason) return `${this.what} ${this.#timeoutReason}`;
    if (error instanceof Failure) return error.message;
    return `${this.what} cannot be reached`;
  }

  close() {
    clearTimeout(this.#timer);
    this.#controller.abort();
    this.subscription.requests.delete(this.#controller);
  }
}

/** Polls the document until a poll fails. */
class Poller {
  /**
   * @param {Subscription} subscription
   * @param {string} reason why the stream is not used
   */
  constructor(subscription, reason) {
    this.subscription = subscription;
    this.reason = reason;
    this.request = new TimedRequest(subscription, "the document");
    /** The failure of the first poll; null if it succeeded. @type {Promise<Failure | null>} */
    this.firstResult = new Promise((resolve) => this.run(resolve));
  }

  /** @param {(failure: Failure | null) => void} reportFirst */
  async run(reportFirst) {
    const { request, subscription } = this;
    const { signal } = request;
    let longPoll = true;
    let successes = 0;
    let failure = null;
    try {
      while (!signal.aborted) {
        let wasHeld;
        try {
          wasHeld = await subscription.poll(request, longPoll);
        } catch (error) {
          if (signal.aborted || !longPoll || !successes || error instanceof InvalidContent) throw error;
          // A proxy may cut off responses that are held.
          longPoll = false;
          continue;
        }
        successes += 1;
        reportFirst(null);
        if (signal.aborted) break;
        subscription.setStatus("polling", wasHeld ? "long-poll" : "poll", this.reason);
        // The first response brings the entity tag that a long poll needs: start that at once.
        const isImmediate = wasHeld || (successes === 1 && subscription.etag !== "");
        if (!isImmediate) await sleep(subscription.times.interval * (0.9 + Math.random() / 5), signal);
      }
    } catch (error) {
      failure = new Failure(request.describe(error), error instanceof Failure ? error.retryAfter : undefined);
    }
    reportFirst(failure);
    request.close();
    if (subscription.poller !== this) return;
    subscription.poller = null;
    // Polling worked before and no longer does. Try the stream at once; if that fails too, back off.
    if (successes) subscription.pause.abort();
  }

  /** Stop polling. */
  stop() {
    this.subscription.poller = null;
    this.request.close();
  }
}

/** @typedef {{type: string, data: string, id: string}} StreamEvent */

/** Incremental parser of event streams (HTML Standard section 9.2.6). */
export class EventParser {
  /** Delay before reconnecting that the server asked for, in milliseconds. @type {number | null} */
  retry = null;
  #line = "";
  #afterReturn = false;
  /** @type {string[]} */
  #data = [];
  #type = "";
  #id = "";

  /**
   * Parse a chunk of the stream, and return the events that it completes.
   *
   * @param {string} text a chunk of any size, decoded and without a byte order mark
   * @returns {StreamEvent[]}
   */
  push(text) {
    /** @type {StreamEvent[]} */
    const events = [];
    if (text === "") return events;
    // The previous chunk may have ended between CR and LF.
    const chunk = this.#afterReturn && text.startsWith("\n") ? text.slice(1) : text;
    this.#afterReturn = text.endsWith("\r");
    const lines = chunk.split(/\r\n|\n|\r/);
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
 * Apply a merge patch (RFC 7396 section 2).
 *
 * Neither argument is modified. Parts of the result that are equal to the target are the same objects.
 *
 * @param {any} target
 * @param {any} patch
 * @returns {any}
 */
export function merge(target, patch) {
  if (!isObject(patch)) return share(target, patch);
  let result = isObject(target) ? target : {};
  for (const key of Object.keys(patch)) {
    const exists = Object.hasOwn(result, key);
    const value = patch[key] === null ? undefined : merge(exists ? result[key] : undefined, patch[key]);
    if (value === undefined ? !exists : exists && value === result[key]) continue;
    if (result === target) result = { ...target };
    if (value === undefined) delete result[key];
    // Assigning "__proto__" would set the prototype instead of a member.
    else Object.defineProperty(result, key, { value, writable: true, enumerable: true, configurable: true });
  }
  return result;
}

/**
 * Replace the parts of `next` that are equal to `previous` by those of `previous`, so that equal parts are identical.
 *
 * @param {any} previous not modified
 * @param {any} next fresh from the parser; modified in place
 * @returns {any} `next`, or `previous` if both are equal
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
 * Parse JSON.
 *
 * @param {string} text
 * @param {string} subject start of the error message, which goes on with "not JSON"
 * @throws {InvalidContent} if the text is not JSON
 */
function parseJSON(text, subject) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new InvalidContent(`${subject} not JSON: ${error instanceof Error ? error.message : error}`);
  }
}

/** @param {unknown} value */
function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Return the base of relative URLs: the page's in a browser, undefined in Node.js. */
function baseURL() {
  return typeof document === "undefined" ? undefined : document.baseURI;
}

/**
 * Return the URL of a document's event stream.
 *
 * @param {string | URL} url
 * @param {string} delta
 */
function eventsURL(url, delta) {
  const events = new URL(url, baseURL());
  events.pathname = events.pathname.replace(/\/$/, "") + "/events";
  events.hash = "";
  if (delta === "merge") events.searchParams.set("delta", "merge");
  return events;
}

/**
 * Return a delay in milliseconds that doubles with each previous failure, plus random jitter of up to a half.
 *
 * @param {number} milliseconds delay before jitter if there was no previous failure
 * @param {number} failures
 * @param {number} [max] maximum before jitter
 */
function backoff(milliseconds, failures, max = Infinity) {
  return Math.min(milliseconds * 2 ** failures, max) * (1 + Math.random() / 2);
}

/**
 * Wait for some time, or until the signal is aborted.
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
 * Call a callback of the user of this module. An error that it throws is logged, and the subscription goes on.
 *
 * @param {() => void} callback
 */
function callSafely(callback) {
  try {
    callback();
  } catch (error) {
    console.error(error);
  }
}
