// Says what is wrong with a HAR file by the schema of HAR 1.2, part by part.
import { createRequire } from 'module';
import { readFileSync } from 'fs';

const validate = createRequire(`${process.argv[2]}/`)('har-validator/lib/promise');
const file = JSON.parse(readFileSync(process.argv[3], 'utf8'));
try {
  await validate.har(file);
  console.log(`valid: ${file.log.entries.length}`);
} catch (error) {
  console.log(JSON.stringify(error.errors ?? String(error), null, 1));
  process.exit(1);
}
