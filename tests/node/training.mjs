// A training that `asktell work` starts: it finds its trial in its environment, and reports and tells by gRPC itself.
import { readFileSync } from 'node:fs';
import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

const { ASKTELL_TARGET, ASKTELL_TRIAL_NAME, ASKTELL_LEASE_TOKEN, ASKTELL_PARAMETERS_FILE } = process.env;
const [, parent, number] = /^(.*)\/trials\/(\d+)$/.exec(ASKTELL_TRIAL_NAME);
const { x } = JSON.parse(readFileSync(ASKTELL_PARAMETERS_FILE, 'utf8'));

const protos = fileURLToPath(new URL('../../proto', import.meta.url));
const definition = loader.loadSync('asktell/v1/trial_service.proto', { includeDirs: [protos], longs: String, enums: String, oneofs: true });
const { TrialService } = grpc.loadPackageDefinition(definition).asktell.v1;
const client = new TrialService(ASKTELL_TARGET, grpc.credentials.createInsecure());
const call = (method, request) =>
  promisify(client[method].bind(client))(request, new grpc.Metadata(), { deadline: Date.now() + 30_000 });

for (const step of [1, 2]) {
  const measurements = [{ step: String(step), metrics: { loss: { value: x / step } } }];
  const { directive } = await call('Report', { name: ASKTELL_TRIAL_NAME, leaseToken: ASKTELL_LEASE_TOKEN, measurements });
  console.log(directive);
}
const result = { number, leaseToken: ASKTELL_LEASE_TOKEN, succeeded: { metrics: { loss: { value: x ** 2 } } } };
await call('Tell', { parent, results: [result], requestId: randomUUID() });
client.close();
