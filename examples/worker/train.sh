#!/bin/sh
# A "training" in shell and awk: train.sh RATE OPTIMIZER [--momentum M]. It prints measurements as JSON, one a line.
rate=$1 optimizer=$2
[ "$3" = --momentum ] && momentum=$4

# A configuration that cannot work; the worker is told that this status means so.
[ "$optimizer" = lbfgs ] && { echo "lbfgs takes no mini-batches" >&2; exit 42; }

echo "slot $ASKTELL_SLOT, trial $ASKTELL_TRIAL: $optimizer at $rate, momentum ${momentum:-none}"
awk -v rate="$rate" -v momentum="${momentum:-0.5}" 'BEGIN {
    loss = 1
    for (step = 1; step <= 5; step++) {
        loss *= 0.2 + (log(rate / 0.01) / 5) ^ 2 + (momentum - 0.8) ^ 2
        printf "{\"step\": %d, \"loss\": %.6g}\n", step, loss
    }
    printf "{\"loss\": %.6g}\n", loss
}'
