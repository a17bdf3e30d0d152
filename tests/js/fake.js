/** A small server that answers as livestate does, and on request as a broken server or proxy would. */

import { createServer } from "node:http";

export class FakeServer {
  /** How event streams are answered: "open", "buffered" (no byte arrives), "refused" (403), "page" (a login page). */
  events = "open";
  /** How long polls are answered: "held", "ignored" (at once), "cut" (the connection is closed). */
  longPolls = "held";
  /** The value of `retry:`, in milliseconds. */
  retry = 20;
  /** The requests so far: { path, query, headers, at }. */
  requests = [];
  state = undefined;
  version = 1000;
  #text = "";
  #server = null;
  #streams = new Set();
  #held = new Set();
  #sockets = new Set();
  port = 0;

  static async start() {
    const fake = new FakeServer();
    await fake.up();
    return fake;
  }

  get url() {
    return `http://127.0.0.1:${this.port}/doc`;
  }

  /** Start listening, after `down` on the same port as before. */
  async up() {
    this.#server = createServer((request, response) => this.#answer(request, response));
    this.#server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
    });
    await new Promise((resolve) => this.#server.listen(this.port, "127.0.0.1", resolve));
    this.port = this.#server.address().port;
  }

  /** Stop listening, and close all connections. */
  async down() {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
    this.#streams.clear();
    this.#held.clear();
  }

  /** Change the state. Streams with `delta=merge` get the patch, if there is one. */
  set(state, patch) {
    this.state = state;
    this.#text = JSON.stringify(state);
    this.version += 1;
    const isPatch = patch !== undefined;
    for (const { response, deltas } of this.#streams) {
      response.write(this.#event(deltas && isPatch ? patch : state, deltas && isPatch));
    }
    for (const release of this.#held) release();
  }

  /** The id of the newest event. */
  get id() {
    return `${this.version}-q3_x-A`;
  }

  /** Send text on all streams. */
  send(text) {
    for (const { response } of this.#streams) response.write(text);
  }

  /** End all streams. */
  cut() {
    for (const { response } of this.#streams) response.end();
  }

  /** Return the requests for a path. */
  requestsFor(path) {
    return this.requests.filter((request) => request.path === path);
  }

  /** The number of open streams. */
  get openStreams() {
    return this.#streams.size;
  }

  #event(content, isPatch) {
    return `${isPatch ? "event: patch\n" : ""}id: ${this.id}\ndata: ${JSON.stringify(content)}\n\n`;
  }

  #answer(request, response) {
    const url = new URL(request.url, this.url);
    this.requests.push({ path: url.pathname, query: url.search, headers: request.headers, at: Date.now() });
    if (url.pathname === "/doc/events") this.#stream(request, response, url.searchParams.get("delta") === "merge");
    else this.#document(request, response);
  }

  #stream(request, response, deltas) {
    if (this.events === "refused") return response.writeHead(403).end();
    if (this.events === "page") return response.writeHead(200, { "Content-Type": "text/html" }).end("<p>Please log in");
    if (this.events === "buffered") return;
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write(`retry: ${this.retry}\n\n`);
    const current = request.headers["last-event-id"] === this.id;
    if (this.state !== undefined && !current) response.write(this.#event(this.state, false));
    const stream = { response, deltas };
    this.#streams.add(stream);
    response.on("close", () => this.#streams.delete(stream));
  }

  #document(request, response) {
    if (this.state === undefined) return response.writeHead(503, { "Retry-After": "1" }).end();
    const wait = this.longPolls !== "ignored" && /wait=(\d+)/.exec(request.headers.prefer ?? "");
    const applied = wait ? { "Preference-Applied": wait[0] } : {};
    const answer = () => {
      this.#held.delete(answer);
      clearTimeout(timer);
      const etag = `"${this.version}"`;
      const fields = { ETag: etag, ...applied };
      if (request.headers["if-none-match"] === etag) response.writeHead(304, fields).end();
      else response.writeHead(200, { "Content-Type": "application/json", ...fields }).end(this.#text);
    };
    let timer;
    if (!wait || request.headers["if-none-match"] !== `"${this.version}"`) return answer();
    if (this.longPolls === "cut") return setTimeout(() => request.socket.destroy(), 30);
    timer = setTimeout(answer, Number(wait[1]) * 1000);
    this.#held.add(answer);
  }
}
