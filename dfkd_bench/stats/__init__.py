"""How methods are compared: functions of numbers alone, of which every interval says how it was made.

A run has one primary number, the test top-1 of its last checkpoint. Two things make it uncertain: the seed (another
initial student, other synthetic images) and the finite test set. They are kept apart, because they answer different
questions: over seeds, whether a *method* is better on this test set; over images, whether these *trained students*
would differ on other images of the same kind.

`intervals`  One method on one task: mean and 95 % interval of Student's t below 30 runs, of the BCa bootstrap from 30
             on. One method over several tasks: the mean of the tasks' means, or the interquartile mean, resampled
             within each task (stratified bootstrap).
`paired`     Two methods on one task: the same seed gives both the same initial student, so differences are taken seed
             by seed. Their spread is never taken for smaller than rounding alone makes it. Holm's correction wherever
             several differences are judged together.
`mcnemar`    Two methods' predictions of the same images: McNemar's test, and its form for several seeds in which an
             image counts once, however many seeds answered it.
`ranks`      Probability that a run of one method beats a run of another; mean ranks over blocks, Friedman's test,
             Nemenyi's critical difference.

A number that is missing stays missing: an aggregate that needs it is NaN, and no mean is taken over what is left. No
random number is drawn but from a generator with a fixed seed, or the one given: statistics are a pure function of the
data.

Sources: Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, NeurIPS 2021 (stratified
bootstrap, interquartile mean, probability of improvement). Demsar, Statistical Comparisons of
Classifiers over Multiple Data Sets, JMLR 7, 2006 (ranks). Holm, Scandinavian Journal of Statistics 6, 1979. Rao and Wu,
JASA 83, 1988 (bootstrap of small strata). Newcombe, Statistics in Medicine 25, 2006, 559 (interval of the probability
of improvement). Durkalski et al., Statistics in Medicine 22, 2003 (McNemar's test of clustered pairs).
"""
