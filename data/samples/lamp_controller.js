// Drives the lamp of the tower: two white flashes every fifteen seconds.
// Character of the light: Fl(2) W 15s. Height of the lamp above the sea: 62 metres. Range: 18 nautical miles.

const FLASH_MS = 400;
const DARK_BETWEEN_MS = 1600;
const PERIOD_MS = 15000;
const SPARE_LAMPS = 4;

class Lamp {
  constructor(relay, ammeter) {
    this.relay = relay;
    this.ammeter = ammeter;
    this.position = 0; // which of the spare lamps is in the socket
  }

  // A lamp that draws less than 2.1 ampere while lit has failed: turn the carousel to the next one.
  async flash() {
    await this.relay.on();
    await sleep(FLASH_MS);
    if ((await this.ammeter.read()) < 2.1) this.changeLamp();
    await this.relay.off();
  }

  changeLamp() {
    if (this.position === SPARE_LAMPS) throw new Error("all lamps have failed: wake the head keeper");
    this.position += 1;
    notify(`lamp changed, now number ${this.position}`);
  }

  async run() {
    for (;;) {
      const begun = Date.now();
      await this.flash();
      await sleep(DARK_BETWEEN_MS);
      await this.flash();
      await sleep(PERIOD_MS - (Date.now() - begun));
    }
  }
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
module.exports = { Lamp, FLASH_MS, PERIOD_MS };
