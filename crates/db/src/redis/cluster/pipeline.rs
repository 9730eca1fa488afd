//! A pipeline across nodes: one write to each, and all at the same time.

use std::collections::HashMap;

use futures_util::stream::{FuturesUnordered, StreamExt};
use portolan_core::{Endpoint, Error, Result};

use super::client::{Call, ClusterClient, Next, judge};
use super::keys;
use super::redirect::Redirect;
use crate::redis::PROTOCOL;
use crate::redis::pipeline::{Pipeline, Replies};
use crate::redis::types::Value;

/// A command that must be sent again, by its place.
type Left = (usize, Option<Redirect>);

/// The commands of a pipeline that go to one node, by their places in it.
#[derive(Default)]
struct Part {
    body: Vec<u8>,
    places: Vec<usize>,
    idempotent: bool,
}

impl ClusterClient {
    /// Sends a pipeline, the part of each node in one write, and waits for all its replies. Commands for one slot run in
    /// their order; those for different nodes run at the same time. A transaction must keep to one slot.
    pub async fn pipeline(&self, pipeline: &Pipeline) -> Result<Replies> {
        let commands = pipeline.commands();
        if commands.is_empty() {
            return Ok(Replies::default());
        }
        if pipeline.is_atomic() {
            return self.transaction(pipeline).await;
        }
        // All keys are looked at before a byte is sent.
        let calls = commands.iter().map(|(body, words)| Call::new(body, words)).collect::<Result<Vec<_>>>()?;
        let mut values: Vec<Option<Value>> = vec![None; calls.len()];
        let mut left = self.first_round(&calls, &mut values).await?;
        // What was redirected, or lost with its node, follows one by one and in its order.
        left.sort_unstable_by_key(|(place, _)| *place);
        for (place, redirect) in left {
            let Some(call) = calls.get(place) else { continue };
            let value = self.dispatch(*call, redirect).await?.pop();
            if let Some(entry) = values.get_mut(place) {
                *entry = value;
            }
        }
        let values = values.into_iter().collect::<Option<Vec<_>>>();
        values.map(Replies::new).ok_or_else(|| Error::protocol(PROTOCOL, "expected a reply to each command"))
    }

    /// Sends every node its part; the places of the commands that must be sent again, and where to if that was said.
    async fn first_round(&self, calls: &[Call<'_>], values: &mut [Option<Value>]) -> Result<Vec<Left>> {
        let mut left = Vec::new();
        let mut parts: HashMap<Endpoint, Part> = HashMap::new();
        for (place, call) in calls.iter().enumerate() {
            let Some(node) = self.0.route(call, 0) else {
                left.push((place, None));
                continue;
            };
            let part = parts.entry(node).or_insert_with(|| Part { idempotent: true, ..Part::default() });
            part.body.extend_from_slice(call.body);
            part.places.push(place);
            part.idempotent &= call.idempotent;
        }
        let mut under_way: FuturesUnordered<_> = parts
            .into_iter()
            .map(|(node, part)| async move {
                let result = match self.0.client(&node).await {
                    Ok(client) => client.raw(&part.body, part.places.len()).await,
                    Err(error) => Err(error),
                };
                (node, part, result)
            })
            .collect();
        while let Some((node, part, result)) = under_way.next().await {
            match result {
                Ok(replies) => {
                    for (place, reply) in part.places.into_iter().zip(replies) {
                        match judge(vec![reply], &node)? {
                            Next::Done(mut reply) => {
                                if let Some(value) = values.get_mut(place) {
                                    *value = reply.pop();
                                }
                            }
                            Next::Redirected(redirect) => left.push((place, Some(redirect))),
                            Next::Again(_) => left.push((place, None)),
                        }
                    }
                }
                Err(error) if self.0.may_repeat(&error, part.idempotent) => {
                    left.extend(part.places.into_iter().map(|place| (place, None)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(left)
    }

    async fn transaction(&self, pipeline: &Pipeline) -> Result<Replies> {
        let mut slot = None;
        for (_, words) in pipeline.commands() {
            match (slot, keys::slot(&words)?) {
                (Some(a), Some(b)) if a != b => {
                    return Err(Error::usage("the keys of one transaction must be in one slot"));
                }
                (_, found) => slot = found.or(slot),
            }
        }
        let mut body = bytes::BytesMut::new();
        pipeline.encode(&mut body);
        let idempotent = pipeline.is_idempotent();
        let call = Call { body: &body, replies: pipeline.owed(), slot, idempotent, reading: false };
        let values = self.dispatch(call, None).await?;
        pipeline.replies(values)
    }
}
