/** livestate.js against a fake server that can misbehave. Run by tests/web/static/test_livestate_js.py or `npm test`. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";

import { EventParser, merge, share, subscribe } from "../../livestate/web/static/livestate.js";
import { FakeServer } from "./fake.js";

/** Milliseconds to wait for a condition on a busy machine; only a failing test waits this long. */
const TIMEOUT = 15_000;

/** Short times, so that a test of minutes takes moments. */
const TIMES = { retry: 20, longest: 60, again: 200, seldom: 400, interval: 40, wait: 1000, answer: 2000, hidden: 30 };

/** Timeouts of streams, long by default: a busy machine may be slow. Tests of blocked or silent streams shorten them. */
const PATIENT = { patience: 60_000, silence: 60_000 };

async function until(condition, what) {
  const deadline = Date.now() + TIMEOUT;
  for (;;) {
    const result = condition();
    if (result) return result;
    if (Date.now() > deadline) throw new Error(`not within ${TIMEOUT} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const delay = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

function freeze(value) {
  if (typeof value === "object" && value !== null) Object.values(Object.freeze(value)).forEach(freeze);
  return value;
}

/** Return a generator of pseudo-random numbers, the same in every run. */
function randomNumbers(seed) {
  return (below) => {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    return Math.floor((seed / 2147483648) * below);
  };
}

function randomJSON(random, depth = 3) {
  const kind = random(depth > 0 ? 7 : 4);
  if (kind === 0) return random(3);
  if (kind === 1) return "abc".slice(random(3));
  if (kind === 2) return random(2) === 0;
  if (kind === 3) return null;
  if (kind === 4) return Array.from({ length: random(4) }, () => randomJSON(random, depth - 1));
  const keys = ["a", "b", "c", "__proto__", ""].filter(() => random(2));
  return JSON.parse(`{${keys.map((key) => `${JSON.stringify(key)}:${JSON.stringify(randomJSON(random, depth - 1))}`)}}`);
}

describe("EventParser", () => {
  const parseAll = (...chunks) => {
    const parser = new EventParser();
    return chunks.flatMap((chunk) => parser.push(chunk));
  };

  it("parses the examples of the standard", () => {
    assert.deepEqual(parseAll("data: YHOO\ndata: +2\ndata: 10\n\n"), [{ type: "message", data: "YHOO\n+2\n10", id: "" }]);
    assert.deepEqual(parseAll(": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n"), [
      { type: "message", data: "first event", id: "1" },
      { type: "message", data: "second event", id: "" },
      { type: "message", data: " third event", id: "" },
    ]);
    assert.deepEqual(parseAll("data\n\ndata\ndata\n\ndata:").map((event) => event.data), ["", "\n"]);
    assert.deepEqual(parseAll("data:test\n\ndata: test\n\n").map((event) => event.data), ["test", "test"]);
  });

  it("keeps the id for the following events, but the type for one event only", () => {
    assert.deepEqual(parseAll("event: patch\nid: 7\ndata: x\n\ndata: y\n\nid: \0\ndata: z\n\n"), [
      { type: "patch", data: "x", id: "7" },
      { type: "message", data: "y", id: "7" },
      { type: "message", data: "z", id: "7" },
    ]);
    assert.deepEqual(parseAll("event: patch\n\ndata: y\n\n"), [{ type: "message", data: "y", id: "" }]);
  });

  it("accepts only digits as a retry time", () => {
    const parser = new EventParser();
    parser.push("retry: 1500\nretry: x\nretry: 1e9\nretry: -1\nretry:\n");
    assert.equal(parser.retry, 1500);
  });

  it("returns the same events however the stream is split and whichever line ends it has", () => {
    const lines = ["data: one", "id: 1", "", "", ": comment", "event: patch", "data:", "data: täxt", "", "data", "", "id"];
    const random = randomNumbers(1);
    for (let round = 0; round < 300; round++) {
      const text = lines.map((line) => line + ["\n", "\r", "\r\n"][random(3)]).join("");
      const chunks = [];
      for (let at = 0; at < text.length; ) {
        const next = at + random(5);
        chunks.push(text.slice(at, next));
        at = next;
      }
      assert.deepEqual(parseAll(...chunks), parseAll(text), JSON.stringify(chunks));
    }
    assert.equal(parseAll(lines.join("\r\n")).length, 3);
  });
});

describe("merge", () => {
  it("agrees with the examples of RFC 7396", () => {
    const examples = [
      ['{"a":"b"}', '{"a":"c"}', '{"a":"c"}'],
      ['{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'],
      ['{"a":"b"}', '{"a":null}', "{}"],
      ['{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'],
      ['{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'],
      ['{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'],
      ['{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'],
      ['{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'],
      ['["a","b"]', '["c","d"]', '["c","d"]'],
      ['{"a":"b"}', '["c"]', '["c"]'],
      ['{"a":"foo"}', "null", "null"],
      ['{"a":"foo"}', '"bar"', '"bar"'],
      ['{"e":null}', '{"a":1}', '{"e":null,"a":1}'],
      ["[1,2]", '{"a":"b","c":null}', '{"a":"b"}'],
      ["{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'],
    ];
    for (const [target, patch, result] of examples) {
      assert.deepEqual(merge(freeze(JSON.parse(target)), JSON.parse(patch)), JSON.parse(result), `${target} ${patch}`);
    }
  });

  /** The algorithm of RFC 7396 section 2, implemented literally. */
  function reference(target, patch) {
    if (typeof patch !== "object" || patch === null || Array.isArray(patch)) return patch;
    const isObject = typeof target === "object" && target !== null && !Array.isArray(target);
    const members = new Map(isObject ? Object.entries(target) : []);
    for (const [name, value] of Object.entries(patch)) {
      if (value === null) members.delete(name);
      else members.set(name, reference(members.get(name), value));
    }
    return Object.fromEntries(members);
  }

  it("agrees with the RFC's algorithm, and modifies neither state nor patch", () => {
    const random = randomNumbers(2);
    for (let round = 0; round < 2000; round++) {
      const [target, patch] = [randomJSON(random), randomJSON(random)];
      const [before, patchText] = [JSON.stringify(target), JSON.stringify(patch)];
      const result = merge(freeze(target), patch);
      assert.deepEqual(result, reference(JSON.parse(before), JSON.parse(patchText)), `${before} ${patchText}`);
      assert.equal(JSON.stringify(target), before);
      assert.equal(JSON.stringify(result), JSON.stringify(reference(JSON.parse(before), JSON.parse(patchText))));
    }
  });

  it("keeps the objects that the patch does not change", () => {
    const state = freeze({ a: { x: 1 }, b: { y: [1, { z: 2 }] }, c: {} });
    const next = merge(state, { a: { x: 2 }, b: { y: [5, { z: 2 }] } });
    assert.notEqual(next.a, state.a);
    assert.equal(next.c, state.c);
    assert.equal(next.b.y[1], state.b.y[1]);
    assert.equal(merge(state, { a: { x: 1 }, nothing: null }), state);
  });

  it("treats __proto__ as an ordinary member", () => {
    const next = merge({}, JSON.parse('{"__proto__": {"admin": true}}'));
    assert.equal(next.admin, undefined);
    assert.equal(JSON.stringify(next), '{"__proto__":{"admin":true}}');
  });
});

describe("share", () => {
  it("returns a state equal to the new one, with the previous objects where nothing changed", () => {
    const random = randomNumbers(3);
    let identical = 0;
    for (let round = 0; round < 2000; round++) {
      const [previous, next] = [randomJSON(random), randomJSON(random)];
      const [before, text] = [JSON.stringify(previous), JSON.stringify(next)];
      assert.deepEqual(share(freeze(previous), next), JSON.parse(text));
      assert.equal(JSON.stringify(previous), before);
      assert.equal(share(previous, JSON.parse(before)), previous);
      identical += before === text;
    }
    assert.ok(identical > 0);
  });
});

describe("subscribe", () => {
  let fake, states, infos, statuses, unsubscribe;

  beforeEach(async () => {
    fake = await FakeServer.start();
    [states, infos, statuses] = [[], [], []];
    unsubscribe = () => {};
  });

  afterEach(async () => {
    unsubscribe();
    await fake.down();
  });

  function start(options = {}) {
    unsubscribe = subscribe(
      fake.url,
      (state, info) => {
        states.push(freeze(state));
        infos.push(info);
      },
      { onStatus: (status) => statuses.push(status), ...options, times: { ...TIMES, ...PATIENT, ...options.times } },
    );
  }

  const shows = (state) => until(() => JSON.stringify(states.at(-1)) === JSON.stringify(state), JSON.stringify(state));
  const is = (state) => until(() => statuses.at(-1)?.state === state, `${state}, not ${JSON.stringify(statuses)}`);

  it("reports the state first and then every change, with patches applied and the rest unchanged", async () => {
    fake.set({ votes: { a: 1, b: 2 }, places: [{ n: 1 }, { n: 2 }] });
    start();
    await shows(fake.state);
    fake.set({ votes: { a: 5, b: 2 }, places: [{ n: 1 }, { n: 2 }] }, { votes: { a: 5 } });
    await shows(fake.state);
    fake.set({ votes: { a: 5, b: 2 }, places: [{ n: 1 }, { n: 3 }] });
    await shows(fake.state);
    assert.equal(states.length, 3);
    assert.equal(states[1].places, states[0].places);
    assert.equal(states[2].votes, states[1].votes);
    assert.equal(states[2].places[0], states[0].places[0]);
    assert.deepEqual(infos.map((info) => info.version), [1001, 1002, 1003]);
    assert.deepEqual(infos.map((info) => info.patch), [undefined, { votes: { a: 5 } }, undefined]);
    assert.ok(infos.every((info) => info.transport === "events" && info.etag === null && info.bytes > 0));
    assert.equal(infos[2].received, infos.reduce((sum, info) => sum + info.bytes, 0));
    assert.deepEqual(statuses.map((status) => status.state), ["connecting", "live"]);
    assert.deepEqual(fake.requests.map(({ path, query }) => path + query), ["/doc/events?delta=merge"]);
  });

  it("requests whole states if delta is none", async () => {
    fake.set({ a: 1 });
    start({ delta: "none" });
    await shows({ a: 1 });
    fake.set({ a: 2 }, { a: 2 });
    await shows({ a: 2 });
    assert.equal(infos[1].patch, undefined);
    assert.equal(fake.requests[0].query, "");
  });

  it("is live while there is no document yet", async () => {
    start();
    await is("live");
    assert.deepEqual(states, []);
    fake.set({ a: 1 });
    await shows({ a: 1 });
  });

  it("reads a state of several lines, split in the middle of a character", async () => {
    start();
    await is("live");
    await until(() => fake.openStreams, "a stream");
    fake.send('id: 5\ndata: {"name":\ndata: "');
    const [first, second] = Buffer.from("ü");
    fake.send(Buffer.from([first]));
    await delay(30);
    fake.send(Buffer.from([second]));
    fake.send('"}\n\n');
    await shows({ name: "ü" });
  });

  it("resumes after its latest version", async () => {
    fake.set({ a: 1 });
    start();
    await shows({ a: 1 });
    fake.cut();
    await until(() => fake.requestsFor("/doc/events").length === 2, "another connection");
    assert.equal(fake.requests[1].headers["last-event-id"], "1001-q3_x-A");
    await is("live");
    assert.equal(states.length, 1);
    fake.set({ a: 2 }, { a: 2 });
    await shows({ a: 2 });
  });

  it("reconnects after the time that the server asks for, plus jitter", async () => {
    fake.set({ a: 1 });
    fake.retry = 300;
    const waited = [];
    start();
    for (let round = 1; round < 5; round++) {
      await until(() => fake.openStreams, "a stream");
      await delay(20);
      const cut = Date.now();
      fake.cut();
      await until(() => fake.requests.length > round, "another connection");
      waited.push(fake.requests.at(-1).at - cut);
    }
    assert.ok(waited.every((milliseconds) => milliseconds >= 295), String(waited));
    assert.ok(new Set(waited).size > 1, String(waited));
  });

  it("survives an unreachable server, and reports it", async () => {
    fake.set({ a: 1 });
    start();
    await shows({ a: 1 });
    await fake.down();
    await is("offline");
    assert.match(statuses.at(-1).reason, /the document cannot be reached/);
    fake.state = undefined;
    await delay(200);
    fake.set({ a: 2 });
    await fake.up();
    await shows({ a: 2 });
    await is("live");
  });

  it("backs off while the server is unreachable", async () => {
    await fake.down();
    const attempts = [];
    start({
      times: { retry: 20, longest: 160 },
      fetch: (url) => {
        if (String(url).includes("/events")) attempts.push(Date.now());
        return Promise.reject(new TypeError("unreachable"));
      },
    });
    await until(() => attempts.length === 7, "some attempts");
    const pauses = attempts.slice(1).map((at, index) => at - attempts[index]);
    for (const [index, min] of [20, 40, 80, 160, 160].entries()) assert.ok(pauses[index] >= min - 3, String(pauses));
    await fake.up();
  });

  for (const [how, reason] of [
    ["buffered", /the event stream sends no data/],
    ["refused", /the event stream returned status 403/],
    ["page", /the response is not an event stream/],
  ]) {
    it(`long-polls while the stream is blocked (${how}), then returns to it`, async () => {
      fake.set({ a: 1, same: [1] });
      fake.events = how;
      start({ times: { patience: 300 } });
      await shows({ a: 1, same: [1] });
      await is("polling");
      assert.match(statuses.at(-1).reason, reason);
      await until(() => fake.requests.some(({ headers }) => headers.prefer === "wait=1"), "a long poll");
      fake.set({ a: 2, same: [1] });
      await shows({ a: 2, same: [1] });
      assert.deepEqual(infos.map((info) => info.transport), ["poll", "long-poll"]);
      assert.equal(statuses.at(-1).transport, "long-poll");
      assert.equal(states[1].same, states[0].same);
      assert.equal(infos[1].version, null);
      assert.equal(infos[1].etag, '"1002"');
      await until(() => fake.requestsFor("/doc/events").length > 2, "the stream to be tried again");
      fake.events = "open";
      await is("live");
      const count = fake.requestsFor("/doc").length;
      fake.set({ a: 3, same: [1] }, { a: 3 });
      await shows({ a: 3, same: [1] });
      assert.equal(states.at(-1).same, states[0].same);
      assert.equal(infos.at(-1).transport, "events");
      await delay(100);
      assert.equal(fake.requestsFor("/doc").length, count);
    });
  }

  for (const how of ["ignored", "cut"]) {
    it(`polls if long polls do not work either (${how})`, async () => {
      fake.set({ a: 1 });
      fake.events = "refused";
      fake.longPolls = how;
      start({ times: { again: 60_000, seldom: 60_000 } });
      await shows({ a: 1 });
      await until(() => fake.requestsFor("/doc").length > 4, "polls");
      for (let a = 2; a < 5; a++) {
        fake.set({ a });
        await shows({ a });
      }
      assert.deepEqual(infos.map((info) => info.transport), ["poll", "poll", "poll", "poll"]);
      assert.equal(statuses.at(-1).transport, "poll");
      assert.equal(statuses.some((status) => status.state === "offline"), false);
      assert.ok(fake.requestsFor("/doc").slice(1).every(({ headers }) => headers["if-none-match"]));
    });
  }

  it("keeps to the polling interval if a response only claims that it was held", async () => {
    const polledAt = [];
    start({
      times: { interval: 200, again: 60_000, seldom: 60_000 },
      fetch: async (url, { headers }) => {
        if (String(url).includes("/events")) return new Response("", { status: 403 });
        polledAt.push(Date.now());
        const fields = { ETag: '"1"', "Preference-Applied": "wait=1" };
        return headers["If-None-Match"] ? new Response(null, { status: 304, headers: fields }) : new Response("1", { headers: fields });
      },
    });
    await until(() => polledAt.length === 4, "polls");
    assert.ok(polledAt[3] - polledAt[1] > 350, String(polledAt));
  });

  it("goes offline when polling fails too, then returns to the stream", async () => {
    fake.set({ a: 1 });
    fake.events = "refused";
    start();
    await is("polling");
    await fake.down();
    await is("offline");
    fake.events = "open";
    await fake.up();
    await is("live");
    await shows({ a: 1 });
  });

  it("reports the status of the document, and obeys Retry-After", async () => {
    fake.events = "refused";
    start();
    await is("offline");
    assert.match(statuses.at(-1).reason, /the document returned status 503/);
    const count = fake.requests.length;
    await delay(500);
    assert.equal(fake.requests.length, count);
    fake.set({ a: 1 });
    await shows({ a: 1 });
  });

  it("gives up a stream that is silent for too long", async () => {
    fake.set({ a: 1 });
    start({ times: { silence: 200 } });
    await shows({ a: 1 });
    fake.send(":\n\n");
    await until(() => statuses.some(({ reason }) => /has gone silent/.test(reason ?? "")), "the report of the silence");
    fake.set({ a: 2 });
    await shows({ a: 2 });
  });

  for (const [what, text] of [
    ["a state that is not JSON", "id: 2000\ndata: {\n\n"],
    ["a patch that is not JSON", "event: patch\nid: 2000\ndata: {]\n\n"],
  ]) {
    it(`reports ${what}, and recovers with a whole state`, async () => {
      fake.set({ a: 1 });
      start();
      await shows({ a: 1 });
      fake.send(text);
      await until(() => statuses.some(({ reason }) => /not JSON/.test(reason ?? "")), "a report");
      await is("live");
      assert.equal(fake.requestsFor("/doc/events").at(-1).headers["last-event-id"], undefined);
      fake.set({ a: 3 }, { a: 3 });
      await shows({ a: 3 });
    });
  }

  it("rejects a patch without a state before it", async () => {
    const answers = ["retry: 20\n\nevent: patch\nid: 3\ndata: {\"a\":2}\n\n"];
    start({ fetch: (url, init) => (answers.length && String(url).includes("/events")
      ? Promise.resolve(new Response(answers.pop(), { headers: { "Content-Type": "text/event-stream" } })) : fetch(url, init)) });
    fake.set({ a: 9 });
    await shows({ a: 9 });
    assert.ok(statuses.some(({ reason }) => /without a state/.test(reason ?? "")));
    assert.ok(states.every((state) => state.a === 9));
  });

  it("ignores events of unknown types", async () => {
    fake.set({ a: 1 });
    start();
    await shows({ a: 1 });
    fake.send("event: other\nid: 7\ndata: nothing\n\n");
    fake.set({ a: 2 }, { a: 2 });
    await shows({ a: 2 });
    assert.equal(statuses.at(-1).state, "live");
  });

  it("ends when unsubscribed, and calls no callback after that", async () => {
    fake.set({ a: 1 });
    start();
    await shows({ a: 1 });
    unsubscribe();
    assert.equal(statuses.at(-1).state, "ended");
    await until(() => fake.openStreams === 0, "the end of the stream");
    const reported = statuses.length;
    fake.set({ a: 2 });
    unsubscribe();
    await delay(100);
    assert.deepEqual([states.length, statuses.length, fake.requests.length], [1, reported, 1]);
  });

  it("ends when its signal is aborted, also before the start", async () => {
    const controller = new AbortController();
    fake.set({ a: 1 });
    start({ signal: controller.signal });
    await shows({ a: 1 });
    controller.abort();
    assert.equal(statuses.at(-1).state, "ended");
    await until(() => fake.openStreams === 0, "the end of the stream");
    start({ signal: controller.signal });
    await is("ended");
    assert.equal(fake.requests.length, 1);
  });

  it("can be ended from its own callback", async () => {
    fake.set({ a: 1 });
    let calls = 0;
    unsubscribe = subscribe(fake.url, () => (calls++, unsubscribe()), { times: TIMES });
    await until(() => calls, "a state");
    fake.set({ a: 2 });
    await delay(50);
    assert.equal(calls, 1);
  });

  it("throws neither for an invalid URL nor for errors of the callbacks", async (test) => {
    const logged = test.mock.method(console, "error", () => {});
    const reported = [];
    subscribe("http://[", () => {}, { onStatus: (status) => reported.push(status.state) });
    await until(() => reported.at(-1) === "ended", "the end");
    assert.deepEqual(reported, ["offline", "ended"]);
    fake.set({ a: 1 });
    let calls = 0;
    unsubscribe = subscribe(fake.url, () => {
      calls++;
      throw new Error("mine");
    }, { times: TIMES });
    await until(() => calls === 1, "a state");
    fake.set({ a: 2 }, { a: 2 });
    await until(() => calls === 2, "another state");
    assert.equal(logged.mock.callCount(), 2);
    assert.equal(fake.requests.length, 1);
  });

  describe("in a page", () => {
    let page;

    beforeEach(() => {
      page = Object.assign(new EventTarget(), { visibilityState: "visible", baseURI: `http://127.0.0.1:${fake.port}/page/` });
      globalThis.document = page;
    });

    afterEach(() => delete globalThis.document);

    function show(visibilityState) {
      page.visibilityState = visibilityState;
      page.dispatchEvent(new Event("visibilitychange"));
    }

    it("resolves relative URLs", async () => {
      fake.set({ a: 1 });
      unsubscribe = subscribe("../doc", (state) => states.push(state));
      await shows({ a: 1 });
      assert.equal(fake.requests[0].path, "/doc/events");
    });

    it("closes the stream while hidden, and catches up at once when shown", async () => {
      fake.set({ a: 1 });
      fake.retry = 60_000;
      start();
      await shows({ a: 1 });
      show("hidden");
      await is("paused");
      await until(() => fake.openStreams === 0, "the end of the stream");
      fake.set({ a: 2 });
      await delay(100);
      assert.equal(states.length, 1);
      show("visible");
      await shows({ a: 2 });
      assert.equal(fake.requests.at(-1).headers["last-event-id"], "1001-q3_x-A");
    });

    it("keeps the stream if it is hidden briefly, or if hidden is continue", async () => {
      fake.set({ a: 1 });
      start({ times: { hidden: 2_000 } });
      await shows({ a: 1 });
      show("hidden");
      await delay(50);
      show("visible");
      fake.set({ a: 2 });
      await shows({ a: 2 });
      assert.equal(fake.requests.length, 1);
      unsubscribe();
      start({ hidden: "continue" });
      await is("live");
      show("hidden");
      fake.set({ a: 3 });
      await shows({ a: 3 });
      await delay(100);
      assert.equal(statuses.at(-1).state, "live");
    });

    it("stops polling while hidden too, and starts paused in a hidden page", async () => {
      fake.set({ a: 1 });
      fake.events = "refused";
      fake.longPolls = "ignored";
      page.visibilityState = "hidden";
      start();
      await is("paused");
      const count = fake.requests.length;
      await delay(150);
      assert.equal(fake.requests.length, count);
      fake.set({ a: 2 });
      show("visible");
      await shows({ a: 2 });
    });
  });
});
