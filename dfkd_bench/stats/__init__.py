"""Statistics for comparing methods. They work on numbers only; each interval records how it was computed (`how`).

A run has one primary number, the test top-1 of its last checkpoint. It is uncertain for two reasons: the seed (another
initial student, other synthetic images) and the finite test set. They are treated separately, because they answer
different questions. Over seeds: is a *method* better on this test set? Over images: would these *trained students*
differ on other images of the same distribution?

`groups`     Mean, standard deviation and t interval by group, for many columns at once.
`intervals`  One method on one task: mean and 95 % interval, Student's t below 30 runs, BCa bootstrap from 30 on. One
             method over several tasks: the mean of the tasks' means, or the interquartile mean, resampled within each
             task (stratified bootstrap).
`paired`     Two methods on one task. The same seed gives both the same initial student, so differences are taken per
             seed. Their standard deviation is at least that of rounding. Holm's correction for several differences.
`mcnemar`    Two methods' predictions of the same images: McNemar's test, and its form for several seeds in which the
             image is the unit.
`ranks`      Probability that a run of one method is better than a run of another; mean ranks over blocks, Friedman's
             test, Nemenyi's critical difference.

Missing values are never dropped: an aggregate that needs one is NaN. Random numbers come only from a generator with a
fixed seed, or from the given one, so results are a pure function of the data.

Sources: Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, NeurIPS 2021 (stratified
bootstrap, interquartile mean, probability of improvement). Demsar, Statistical Comparisons of Classifiers over Multiple
Data Sets, JMLR 7, 2006 (ranks). Holm, Scandinavian Journal of Statistics 6, 1979. Rao and Wu, JASA 83, 1988 (bootstrap
of small strata). Newcombe, Statistics in Medicine 25, 2006, 559 (interval of the probability of improvement). Durkalski
et al., Statistics in Medicine 22, 2003 (McNemar's test of clustered pairs).
"""
