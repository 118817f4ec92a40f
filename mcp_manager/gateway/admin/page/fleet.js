// What is known of the gateway and its servers; views ask to be told of changes.

export class Fleet {
  constructor() {
    this.servers = new Map();
    this.gateway = null;
    this.listeners = [];
    this.isTold = true;
  }

  /** Call a function after changes, at most once for each frame of the screen. */
  onChange(listener) {
    this.listeners.push(listener);
  }

  /** Take over a snapshot of the gateway. */
  takeSnapshot(snapshot) {
    this.gateway = snapshot.gateway ?? {};
    this.servers = new Map((snapshot.servers ?? []).map((server) => [server.id, server]));
    this.changed();
  }

  /** Take over what an event tells; the next snapshot tells the rest. */
  takeEvent(kind, record) {
    const server = this.servers.get(record.server_id);
    if (server === undefined) return;
    if (kind === "server_state_changed") this.replace(server, { state: record.state, reasons: record.reasons ?? [] });
    if (kind === "server_scaled" || kind === "server_redeployed") this.replace(server, { desired: record.instances });
    if (kind === "server_undeployed") {
      this.servers.delete(server.id);
      this.changed();
    }
  }

  /** Forget everything. */
  clear() {
    this.gateway = null;
    this.servers = new Map();
    this.changed();
  }

  replace(server, changes) {
    this.servers.set(server.id, { ...server, ...changes });
    this.changed();
  }

  changed() {
    if (!this.isTold) return;
    this.isTold = false;
    // Frames are not drawn while the tab is hidden, but its title shall be true.
    if (document.hidden) setTimeout(() => this.tell(), 200);
    else requestAnimationFrame(() => this.tell());
  }

  tell() {
    this.isTold = true;
    for (const listener of this.listeners) listener(this);
  }
}
