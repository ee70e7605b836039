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

export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    const [, what, key] = url.pathname.split("/");
    if (what === "alarms-handled") {
      return new Response(`${alarmsHandled}`);
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
