//! Lives of containers that others start and stop.

use super::*;

/// What runs since before its owner is a life like any other, from there on.
#[test]
fn an_adopted_life_goes_on_where_another_owner_left_it() {
    let (mut state, effects) = State::adopt();
    assert_eq!(
        (state.phase(), &effects[..]),
        (Phase::Running, &[Effect::Serve, Effect::Begin(Job::Look)][..])
    );
    let now = Instant::now();
    assert_eq!(state.handle(now, LifeEvent::Done(Job::Look)), [Effect::Tell(Word::Running)]);
    let effects = state.handle(now, LifeEvent::Ended { known: true });
    assert!(effects.contains(&Effect::Hold), "{effects:?}");
    assert_eq!(state.handle(now, LifeEvent::TornDown), [Effect::Finish(LifeFate::Ended)]);
}

/// A start that never comes to the gate gives everything back; one that has come has as long again.
#[test]
fn a_start_that_never_comes_is_given_up() {
    for kind in [LifeKind::Adopted, LifeKind::Again] {
        let mut world = at(kind, Phase::Starting);
        assert!(world.timers.contains(&Timer::Knock), "{kind:?}");
        world.handle(LifeEvent::Knocked);
        assert!(world.timers.contains(&Timer::Knock), "{kind:?}");
        world.handle(LifeEvent::Due(Timer::Knock));
        world.handle(LifeEvent::Cancelled(Job::Wire));
        let torn = world.all.iter().find_map(|effect| match effect {
            Effect::TearDown { claimed, fate, .. } => Some((*claimed, *fate)),
            _ => None,
        });
        assert_eq!(torn, Some((true, LifeFate::NotStarted)), "{kind:?}");
    }
}
