// Search runs in a worker, which browsers refuse to pages opened from a file: there it runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.appendChild(frame)
      this.view = frame.contentWindow
      this.view.postMessage = data => {
        const event = new MessageEvent("message", { data })
        this.dispatchEvent(event)
        if (this.onmessage) this.onmessage(event)
      }
      this.view.importScripts = (...urls) => Promise.all(urls.map(url => this.load(url)))
      this.ready = this.load(url)
    }

    load(url) {
      return new Promise((resolve, reject) => {
        const script = this.view.document.createElement("script")
        script.src = url
        script.onload = resolve
        script.onerror = reject
        this.view.document.body.appendChild(script)
      })
    }

    postMessage(data) {
      this.ready.then(() => this.view.dispatchEvent(new MessageEvent("message", { data })))
    }

    terminate() {}
  }
}
