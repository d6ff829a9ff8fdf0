// Unpacks the packaged Chromium and what it needs into TMPDIR; prints where each part lies.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { inflate } from "@sparticuz/chromium";

const packed = fileURLToPath(new URL("../bin/", import.meta.resolve("@sparticuz/chromium")));
const [executable, libraries, fonts] = await Promise.all([
  inflate(join(packed, "chromium.br")),
  inflate(join(packed, "al2023.tar.br")),
  inflate(join(packed, "fonts.tar.br")),
]);
// The packaged one looks for the fonts in fixed places outside.
writeFileSync(
  join(fonts, "fonts.conf"),
  `<?xml version="1.0"?><fontconfig><dir>${fonts}</dir><cachedir>${fonts}/cache</cachedir></fontconfig>`,
);
console.log(JSON.stringify({ executable, libraries: join(libraries, "lib"), fonts }));
