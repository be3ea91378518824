"""Benchmarks: training steps and layers timed beside their peers, interleaved in one run.

`suites` says what is timed, `floor` and `peers` what it is compared with, `harness` takes the times
and notes where, `report` prints them. This module imports nothing heavy, so that
``nembp bench --help`` is there at once.
"""

SUITES = {
    "dense": "training steps of fully connected classifiers",
    "convolution": "convolutions by themselves, and training steps of classifiers of images",
    "adversarial": "training steps of a generator and a discriminator",
    "parts": "where the time of a fully connected classifier's step goes",
    "estimators": "the scikit-learn estimator beside MLPClassifier: time and accuracy",
}
