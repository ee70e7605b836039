// The counter as a Durable Object. The paths are those of ../served.py.

import { DurableObject } from "cloudflare:workers";

// Objects of one process share the module's globals.
let alarmsHandled = 0;

export class Counter extends DurableObject {
  constructor(ctx, env) {
    super(ctx, env);
    this.state = ctx.storage.kv.get("state") ?? {
      count: 0,
      total: 0,
      label: "a benchmark's counter",
    };
  }

  // The reply waits at the output gate until what was put is on disk.
  add(by) {
    this.state.count += 1;
    this.state.total += by;
    this.ctx.storage.kv.put("state", this.state);
    return this.state.total;
  }

  value() {
    return this.state.total;
  }

  async setAlarm(at) {
    await this.ctx.storage.setAlarm(at);
  }

  async alarm() {
    this.add(1);
    await this.ctx.storage.sync();
    alarmsHandled += 1;
  }
}

function gcd(a, b) {
  return b === 0 ? a : gcd(b, a % b);
}

// The callers of ../driver.py, with the same strides, in this process: calls without HTTP.
async function drive(env, operation, callers, objects, milliseconds) {
  const counters = Array.from({ length: objects }, (_, number) => {
    const name = `object-${String(number).padStart(7, "0")}`;
    return env.COUNTERS.get(env.COUNTERS.idFromName(name));
  });
  const end = Date.now() + milliseconds;
  let calls = 0;
  async function caller(number) {
    let place = (number * 7919) % objects;
    let stride = 2 * number + 1;
    while (gcd(stride, objects) > 1) {
      stride += 2;
    }
    while (Date.now() < end) {
      await (operation === "add" ? counters[place].add(1) : counters[place].value());
      calls += 1;
      place = (place + stride) % objects;
    }
  }
  await Promise.all(Array.from({ length: callers }, (_, number) => caller(number)));
  return calls;
}

export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    const [, what, key] = url.pathname.split("/");
    if (what === "alarms-handled") {
      return new Response(`${alarmsHandled}`);
    }
    if (what === "constant") {
      return new Response("0");
    }
    if (what === "drive") {
      const given = ["callers", "objects", "ms"].map((name) => Number(url.searchParams.get(name)));
      return new Response(`${await drive(env, key, ...given)}`);
    }
    const counter = env.COUNTERS.get(env.COUNTERS.idFromName(key));
    switch (request.method) {
      case "POST":
        return new Response(`${await counter.add(1)}`);
      case "PUT":
        await counter.setAlarm(Number(url.searchParams.get("at")));
        return new Response("0");
      default:
        return new Response(`${await counter.value()}`);
    }
  },
};
