// Prints what publint and Are The Types Wrong find in a package: node check_package.mjs TARBALL FOLDER, where it is unpacked.

import { readFileSync } from 'node:fs';

import { checkPackage, createPackageFromTarballData } from '@arethetypeswrong/core';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';

const [tarball, folder] = process.argv.slice(2);

const { messages, pkg } = await publint({ pkgDir: folder, strict: true, pack: false });
for (const message of messages) console.log(formatMessage(message, pkg));

const { problems } = await checkPackage(createPackageFromTarballData(new Uint8Array(readFileSync(tarball))));
// It is a package of ES modules: neither require() nor a TypeScript without `exports` reads it.
const unsupported = new Set(['node10', 'node16-cjs']);
for (const problem of problems) if (!unsupported.has(problem.resolutionKind)) console.log(JSON.stringify(problem));
