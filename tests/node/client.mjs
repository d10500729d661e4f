// Tunes a function of two parameters: node client.mjs TARGET STUDY. Prints what it saw as JSON.
import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

const [target, studyId] = process.argv.slice(2);
const protos = fileURLToPath(new URL('../../proto', import.meta.url));
const services = ['study_service', 'trial_service'].map((name) => `asktell/v1/${name}.proto`);
// 64-bit integers as text: JavaScript's numbers are exact to 2^53 only.
const definition = loader.loadSync(services, { includeDirs: [protos], longs: String, enums: String, arrays: true, defaults: true, oneofs: true });
const { v1 } = grpc.loadPackageDefinition(definition).asktell;

function connect(Service) {
  const client = new Service(target, grpc.credentials.createInsecure());
  return (method, request) =>
    promisify(client[method].bind(client))(request, new grpc.Metadata(), { deadline: Date.now() + 30_000 });
}

const studies = connect(v1.StudyService);
const trials = connect(v1.TrialService);

const study = {
  spec: {
    parameters: [
      { name: 'x', floatSpec: { low: -1, high: 1 } },
      { name: 'exact', categoricalSpec: { choices: [{ int64Value: '9007199254740993' }] } },
    ],
    objectives: [{ metric: 'loss', goal: 'GOAL_MINIMIZE' }],
    seed: '7',
  },
  budget: { maxTrials: '4' },
};
const { name } = await studies('CreateStudy', { parent: 'projects/node', studyId, study });

const seen = [];
let repeated = 0;
for (;;) {
  const request = { parent: name, workerId: 'node', requestId: randomUUID() };
  const reply = await trials('Ask', request);
  if (reply.trials.length === 0) {
    seen.push(reply.studyState, reply.reason);
    break;
  }
  const again = await trials('Ask', request);
  repeated += JSON.stringify(again) === JSON.stringify(reply) ? 1 : 0;
  const [trial] = reply.trials;
  const x = trial.parameters.x.doubleValue;
  const metrics = { loss: { value: (x - 0.25) ** 2 } };
  const report = { name: trial.name, leaseToken: trial.lease.token, measurements: [{ step: '1', metrics }] };
  const { directive } = await trials('Report', report);
  const result = { number: trial.number, leaseToken: trial.lease.token, succeeded: { metrics } };
  const told = await trials('Tell', { parent: name, results: [result], requestId: randomUUID() });
  seen.push({ number: trial.number, exact: trial.parameters.exact.int64Value, x, directive, state: told.trials[0].state });
}

const { trials: best } = await trials('ListOptimalTrials', { parent: name });
const refusal = await studies('GetStudy', { name: 'projects/node/studies/none' }).catch((error) => error.code);
console.log(JSON.stringify({ seen, repeated, best: best[0].metrics.loss.value, refusal }));
process.exit(0);
